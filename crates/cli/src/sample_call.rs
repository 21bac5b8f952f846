//! What a new server shows: where it and its page are, and two first calls that can be pasted as they stand.

use ocellus_server::Page;

/// A brown tree and a blue ring on a plain ground, 140x112 pixels: the sample calls need no file and no
/// network.
const PICTURE: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAIwAAABwBAMAAAA+voVvAAAAMFBMVEXb0ePSw9DItbzCwOOfqOS/p6i2mZWLmuR2jeWsioGjfG6ablqQYEZTdeUmVuaHUjPvG27fAAACc0lEQVR42u1YMW/TUBD+8hwSJVBkkEAsCJBgrkfE1LFspmJFZICFH1GE1DnKQtdkAalCAuYupBJTl/AHKrHVYjiVSqkU13AMthPbVXH87qCLv+U9JdaXu+/dd+8coEaNGv8Pl5Z90Pz121euSjRfxhoshkMNmi5zT4HmDvOxgsQ+0FUQecLMnxUUZuaZOKkOALR8BYWZeU9KM2Rm5kialAcAcEZCX3KMqSyaVlrLdxUUFos8TGlk/uQ5BgKW1oJmKpA400Dbrj3N/flu9+mRgsLHEoEbc2UiV0dhiRu67/xJQnOi4ilmkRsus4obVlnFDcOFyD0VT5WXjiltN4DotrqSiUZQOqtZmqk1zacsDbtiTzEzs+2g08nThJYn5RScYXkHP89Hwz8tx74CTWTFYriIkYLCZaVjlrDCEoY4j6bo6dPtezbXwyQn784TiBXefykZrCt14nO0uREvHxZDl3UD3X/rgplZMIpOovd+2kjtW5bZyFhiZK3N74/JZtlaMeWP+HKasU40RwAaOkk1Vd7vpFP6BSRVQnOqVzdGh8bRSCravnb24/WDLc/Ko7nw+kQUeNJi2iQiosOqiRewshPXQWdc7RgKeJOsL7JjTGWW5o90tzEWRPNovhtJkvIBzK4PALQl50REAYA+EQmicQAEAF7nbrDKNI1kTjgBIHhfW4lzAvpE3yR1g+hstzdQwQXSxF11TfS7TSLyADhEtGYfDScu6OZu+Mo0vwDcSnwuOfAB0DrEZg8IJY3i6vd0N70tiGbxH8EzyYFH6eQdyprobrIGspYetR8CwOyBjAZfb3pA+DiQOshZP9hCjRo1/iH+AD+ZyaBOPYtEAAAAAElFTkSuQmCC";

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
        for model in ["ocellus-demo", "it's", "a\"b\\c"] {
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
