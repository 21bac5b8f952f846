//! Where clients reach this server, when it can't tell by itself.

use reqwest::Url;

/// `http(s)://HOST[:PORT][/PATH]` without a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl(String);

impl PublicUrl {
    /// What a client wrote into its `Host` header is how it reaches this server, when there is nothing in between.
    pub(crate) fn of_host(host: &str) -> Option<Self> {
        // A host and a port are all that may be in there.
        let plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte));
        if plain { format!("http://{host}").parse().ok() } else { None }
    }

    /// The host, as a URL spells it.
    pub(crate) fn host(&self) -> Option<String> {
        Url::parse(&self.0).ok()?.host_str().map(str::to_owned)
    }

    /// The address of a path on this server.
    pub(crate) fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}

impl std::str::FromStr for PublicUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is not a URL, such as https://example.org or http://10.0.0.7:8080/ocellus");
        let url = Url::parse(text).map_err(|_| wrong())?;
        let plain = matches!(url.scheme(), "http" | "https")
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        if !plain || url.host_str().is_none_or(str::is_empty) {
            return Err(wrong());
        }
        Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        #[track_caller]
        fn check(text: &str, expected: Option<&str>) {
            let read = text.parse::<PublicUrl>().ok().map(|url| url.join("/x"));
            assert_eq!(read.as_deref(), expected, "{text}");
        }
        check("https://Example.org", Some("https://example.org/x"));
        check("http://10.0.0.7:8080/ocellus/", Some("http://10.0.0.7:8080/ocellus/x"));
        check("http://[::1]:8000", Some("http://[::1]:8000/x"));
        for text in
            ["", "example.org", "ftp://example.org", "http://", "http://a@b", "http://a?b", "http://a#b"]
        {
            check(text, None);
        }
    }

    #[test]
    fn hosts() {
        #[track_caller]
        fn check(host: &str, expected: Option<&str>) {
            assert_eq!(PublicUrl::of_host(host).map(|url| url.join("")).as_deref(), expected, "{host}");
        }
        check("127.0.0.1:8000", Some("http://127.0.0.1:8000"));
        check("example.org", Some("http://example.org"));
        check("[::1]:80", Some("http://[::1]"));
        for host in ["", "a/b", "a@b", "a b", "a?b", "ä", "a:b", "a\\b"] {
            check(host, None);
        }
    }
}
