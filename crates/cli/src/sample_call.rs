//! What a new server shows: where it and its page are, and two first calls that can be pasted as they stand.

use ocellus_server::Page;

/// A yellow circle and a white star on a plain ground, 112x84 pixels: the sample calls need no file and no
/// network.
const PICTURE: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAHAAAABUBAMAAACo865YAAAAMFBMVEX//vnk497/1zTIx8OtrajkwC/IqSqhk1SSfCB3cVtcW1dNRytBOBAlJSElIQsKCga4mYyMAAABrElEQVR42u2Wv0vDUBDHv7GPUkFoBydBWtp/IIKLg5Chg1v/BHURFYX+AQ6Cg6vipIt10bGTboKbawcXp3QTRFCKIv2RnIOxTeJrcxeoiOYtyV3y4Xvv3r33ziDEGxNIwAT8feCNzkmMsaDxGYzd4So3XqjvVPvu5Ci2svlmLMU6HuMpzjUMN46i24BmkgzFtylg2gSQvmSvY7tczvnm6v8UUQAHPolZEoCO2ecUSUDq5LSBRoN0pw2UAdIZACAlL/JWFgBgF6QFYA/Zk5GhekWTD7mjFWvApAU8iRVzULZjhZcxOqtdGHUix4ItBNuoEBF1zVMh+LroKVeE69hJ6/1G0gMk4D8Fab9UKm2NAvW7o735eahtV2Wgs+YdhqkTSwTu9e9RdS+Z48Pg/u0tS8Ad3/vtCx9s+097Z5cPBnuTaz4Y1OiwQSd4L/UaXLDH6Tl1YLiJao5d8ee3lQrZFhcMewpjV0wF/1QmOzkrASvDz+p8wFrlgxl/cKrKB40jn7EkKYCZQXrSh6LKOf4KVl3ISk6de88Nc3jNDemLrorF4vrziMYp6XP+BvgBiKvJUGsrnNAAAAAASUVORK5CYII=";

/// The text for a server at `url`, such as `http://127.0.0.1:8000`.
pub(crate) fn text(url: &str, model: &str, with_key: bool, page: Page) -> String {
    // Inside of single quotes of a shell, and of a JSON string, inside of which `"` and `\` have a meaning.
    let in_json = serde_json::Value::from(model).to_string();
    let in_shell = in_json.replace('\'', r"'\''");
    let (header, key) = if with_key {
        ("  -H \"Authorization: Bearer $OCELLUS_API_KEY\" \\\n", "os.environ[\"OCELLUS_API_KEY\"]")
    } else {
        ("", "\"none\"")
    };
    let page = match page {
        Page::Shown => format!("Ask it on the page at {url}/\n"),
        Page::Off => String::new(),
    };
    let import = if with_key { "import os\n" } else { "" };
    format!(
        r#"Ocellus serves {in_json} at {url}/v1
{page}
curl {url}/v1/chat/completions -H 'Content-Type: application/json' \
{header}  -d '{{"model": {in_shell}, "max_tokens": 64, "messages": [{{"role": "user", "content": [
    {{"type": "image_url", "image_url": {{"url": "{PICTURE}"}}}},
    {{"type": "text", "text": "What is in this picture?"}}]}}]}}'

{import}from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key={key})
answer = client.chat.completions.create(model={in_json}, max_tokens=64, messages=[{{"role": "user", "content": [
    {{"type": "image_url", "image_url": {{"url": "{PICTURE}"}}}},
    {{"type": "text", "text": "What is in this picture?"}}]}}])
print(answer.choices[0].message.content)

"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body between the single quotes, as a shell would hand it to curl.
    fn body(text: &str) -> serde_json::Value {
        let start = text.find("-d '").unwrap() + 4;
        let end = text.find("'\n\n").unwrap();
        serde_json::from_str(&text[start..end].replace(r"'\''", "'")).unwrap()
    }

    #[test]
    fn the_call_is_json_whatever_the_name() {
        for model in ["ocellus-nano", "it's", "a\"b\\c"] {
            for with_key in [false, true] {
                let text = text("http://127.0.0.1:8000", model, with_key, Page::Shown);
                let body = body(&text);
                assert_eq!(body["model"], model);
                assert_eq!(body["messages"][0]["content"][0]["image_url"]["url"], PICTURE);
                assert_eq!(text.contains("Authorization"), with_key);
                assert!(text.contains("\nAsk it on the page at http://127.0.0.1:8000/\n"), "{text}");
            }
        }
        assert!(!text("http://127.0.0.1:8000", "eye", false, Page::Off).contains("page"));
    }
}
