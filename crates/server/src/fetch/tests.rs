//! The fetcher against listeners on this machine, which must not be reached by any spelling that the policy forbids.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// What a listener answers at a path.
#[derive(Clone)]
enum Page {
    /// These bytes, then the connection is closed.
    Raw(Vec<u8>),
    /// These bytes, then one more again and again, slower than any limit.
    Drip(Vec<u8>),
    /// These bytes, then more without an end, as fast as they are taken.
    Flood(Vec<u8>),
}

/// A file server on a port of its own that counts connections.
struct Listener {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Listener {
    async fn start(pages: impl Fn(u16) -> HashMap<&'static str, Page>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connections, pages) = (Arc::new(AtomicUsize::new(0)), pages(port));
        let counter = connections.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                let pages = pages.clone();
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    let mut piece = [0; 1024];
                    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                        match stream.read(&mut piece).await {
                            Ok(n) if n > 0 => request.extend_from_slice(&piece[..n]),
                            _ => return,
                        }
                    }
                    let request = String::from_utf8_lossy(&request).into_owned();
                    let path = request.split(' ').nth(1).unwrap_or_default();
                    let page = pages.get(path).cloned().unwrap_or_else(|| Page::Raw(ok(b"picture")));
                    let (Page::Raw(bytes) | Page::Drip(bytes) | Page::Flood(bytes)) = &page;
                    let mut alive = stream.write_all(bytes).await.is_ok();
                    while alive {
                        match &page {
                            Page::Raw(_) => return,
                            Page::Drip(_) => {
                                tokio::time::sleep(Duration::from_millis(20)).await;
                                alive = stream.write_all(b"x").await.is_ok();
                            }
                            Page::Flood(_) => alive = stream.write_all(&[b'x'; 4096]).await.is_ok(),
                        }
                    }
                });
            }
        });
        Self { port, connections }
    }

    async fn plain() -> Self {
        Self::start(|_| HashMap::new()).await
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// A policy that admits this listener and nothing else.
    fn only(&self) -> Policy {
        Policy::AllowList(vec![format!("127.0.0.1:{}", self.port).parse().unwrap()])
    }

    async fn get(&self, path: &str) -> Result<Vec<u8>, Refusal> {
        self.get_within(path, limits()).await
    }

    async fn get_within(&self, path: &str, limits: Limits) -> Result<Vec<u8>, Refusal> {
        let fetcher = Fetcher::new(self.only(), limits).unwrap();
        fetcher.get(parse_url(&format!("http://127.0.0.1:{}{path}", self.port)).unwrap()).await
    }
}

fn ok(body: &[u8]) -> Vec<u8> {
    let mut response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    response.extend_from_slice(body);
    response
}

fn redirect(location: &str) -> Page {
    Page::Raw(format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").into_bytes())
}

fn limits() -> Limits {
    Limits {
        file_bytes: 100,
        request_bytes: 1000,
        file_timeout: Duration::from_secs(20),
        request_timeout: Duration::from_secs(40),
    }
}

#[tokio::test]
async fn no_spelling_of_a_private_address_is_public() {
    let listener = Listener::plain().await;
    let port = listener.port;
    let fetcher = Fetcher::new(Policy::Public, limits()).unwrap();
    for host in [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "１２７.0.0.1",
        "127。0。0。1",
        "%31%32%37.0.0.1",
        "0.0.0.0",
        "0",
        "[::]",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "10.0.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "192.168.0.1",
        "255.255.255.255",
    ] {
        let url = parse_url(&format!("http://{host}:{port}/a.png")).expect(host);
        let refusal = fetcher.get(url).await;
        // A name without an address can't be fetched either; what counts is that the listener saw nobody.
        let expected = matches!(refusal, Err(Refusal::FetchForbidden))
            || host.starts_with("localhost.") && refusal == Err(Refusal::DownloadFailed);
        assert!(expected, "{host}: {refusal:?}");
    }
    assert_eq!(listener.connections(), 0);
}

#[tokio::test]
async fn only_what_the_policy_names() {
    let (allowed, other) = (Listener::plain().await, Listener::plain().await);
    assert_eq!(allowed.get("/a.png").await, Ok(b"picture".to_vec()));
    let fetcher = Fetcher::new(allowed.only(), limits()).unwrap();
    for url in [
        format!("http://127.0.0.1:{}/", other.port),
        format!("http://localhost:{}/", allowed.port),
        format!("http://127.0.0.2:{}/", allowed.port),
        format!("http://127.0.0.1:{}@example.org/", allowed.port).replace('@', "."),
    ] {
        // The last one does not even parse.
        let refusal = match parse_url(&url) {
            Ok(url) => fetcher.get(url).await,
            Err(refusal) => Err(refusal),
        };
        assert!(matches!(refusal, Err(Refusal::FetchForbidden | Refusal::UrlInvalid)), "{url}: {refusal:?}");
    }
    // The same address in another spelling is the same.
    let url = parse_url(&format!("http://0x7f.1:{}/", allowed.port)).unwrap();
    assert_eq!(fetcher.get(url).await, Ok(b"picture".to_vec()));
    assert_eq!((allowed.connections() >= 1, other.connections()), (true, 0));

    let url = || parse_url(&format!("http://127.0.0.1:{}/", other.port)).unwrap();
    let with = |policy| Fetcher::new(policy, limits()).unwrap();
    assert_eq!(with(Policy::Off).get(url()).await, Err(Refusal::FetchOff));
    assert_eq!(with(Policy::Public).get(url()).await, Err(Refusal::FetchForbidden));
    assert_eq!(with(Policy::Any).get(url()).await, Ok(b"picture".to_vec()));
}

#[tokio::test]
async fn every_hop_is_admitted_anew() {
    let other = Listener::plain().await;
    let listener = Listener::start(|port| {
        HashMap::from([
            ("/1", redirect("/2")),
            ("/2", redirect(&format!("http://127.0.0.1:{port}/3"))),
            ("/3", redirect("4")),
            ("/4", redirect("//127.0.0.1:PORT/5".replace("PORT", &port.to_string()).as_str())),
            ("/5", redirect("?last")),
            ("/0", redirect("/1")),
            ("/loop", redirect("/loop")),
            ("/other", redirect(&format!("http://127.0.0.1:{}/", other.port))),
            ("/name", redirect(&format!("http://localhost:{port}/"))),
            ("/metadata", redirect("http://169.254.169.254/latest/meta-data/")),
            ("/file", redirect("file:///etc/passwd")),
            ("/ftp", redirect("ftp://127.0.0.1/a.png")),
            ("/data", redirect("data:image/png;base64,aGk=")),
            ("/user", redirect(&format!("http://me:secret@127.0.0.1:{port}/"))),
            ("/nonsense", redirect("http://[::1")),
            ("/nowhere", Page::Raw(b"HTTP/1.1 301 Moved\r\nContent-Length: 0\r\n\r\n".to_vec())),
        ])
    })
    .await;
    // Five redirects are followed, six are not.
    assert_eq!(listener.get("/1").await, Ok(b"picture".to_vec()));
    assert_eq!(listener.get("/0").await, Err(Refusal::DownloadFailed));
    assert_eq!(listener.get("/loop").await, Err(Refusal::DownloadFailed));
    for path in ["/other", "/name", "/metadata"] {
        assert_eq!(listener.get(path).await, Err(Refusal::FetchForbidden), "{path}");
    }
    for path in ["/file", "/ftp", "/data", "/user", "/nonsense"] {
        assert_eq!(listener.get(path).await, Err(Refusal::UrlInvalid), "{path}");
    }
    assert_eq!(listener.get("/nowhere").await, Err(Refusal::DownloadFailed));
    assert_eq!(other.connections(), 0);
}

#[tokio::test]
async fn bodies_within_their_bounds() {
    let raw = |text: &str| Page::Raw(text.as_bytes().to_vec());
    let listener = Listener::start(|_| {
        HashMap::from([
            ("/empty", Page::Raw(ok(b""))),
            ("/full", Page::Raw(ok(&[7; 100]))),
            ("/over", Page::Raw(ok(&[7; 101]))),
            ("/announced", raw("HTTP/1.1 200 OK\r\nContent-Length: 9000000000000000000\r\n\r\n")),
            ("/short", raw("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nxxx")),
            ("/close", raw("HTTP/1.1 200 OK\r\n\r\nuntil the end")),
            ("/chunked", raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")),
            ("/flood", Page::Flood(b"HTTP/1.1 200 OK\r\n\r\n".to_vec())),
            ("/drip", Page::Drip(b"HTTP/1.1 200 OK\r\n\r\n".to_vec())),
            ("/slow-head", Page::Drip(b"HTTP/1.1 200 OK\r\nX: ".to_vec())),
            ("/404", raw("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")),
            ("/500", raw("HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno")),
            ("/206", raw("HTTP/1.1 206 Partial Content\r\nContent-Length: 2\r\n\r\nno")),
            ("/304", raw("HTTP/1.1 304 Not Modified\r\n\r\n")),
            ("/nonsense", raw("SSH-2.0\r\n\r\n")),
        ])
    })
    .await;
    for (path, expected) in [
        ("/empty", Ok(Vec::new())),
        ("/full", Ok(vec![7; 100])),
        ("/over", Err(Refusal::MediaTooLarge)),
        ("/announced", Err(Refusal::MediaTooLarge)),
        ("/short", Err(Refusal::DownloadFailed)),
        ("/close", Ok(b"until the end".to_vec())),
        ("/chunked", Ok(b"abc".to_vec())),
        ("/flood", Err(Refusal::MediaTooLarge)),
        ("/404", Err(Refusal::DownloadFailed)),
        ("/500", Err(Refusal::DownloadFailed)),
        ("/206", Err(Refusal::DownloadFailed)),
        ("/304", Err(Refusal::DownloadFailed)),
        ("/nonsense", Err(Refusal::DownloadFailed)),
    ] {
        assert_eq!(listener.get(path).await, expected, "{path}");
    }
    let hasty = Limits { file_timeout: Duration::from_millis(100), ..limits() };
    for path in ["/drip", "/slow-head"] {
        assert_eq!(listener.get_within(path, hasty).await, Err(Refusal::DownloadTimedOut), "{path}");
    }
}

/// Gives each lookup the next answer and counts.
struct Answers {
    answers: Vec<Vec<SocketAddr>>,
    asked: AtomicUsize,
}

impl Lookup for Answers {
    fn addresses(&self, _: String) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<SocketAddr>>> + Send>> {
        let index = self.asked.fetch_add(1, Ordering::SeqCst).min(self.answers.len() - 1);
        let answer = self.answers[index].clone();
        Box::pin(async move { Ok(answer) })
    }
}

#[tokio::test]
async fn a_name_is_looked_up_once_and_checked_whole() {
    let listener = Listener::plain().await;
    let here: SocketAddr = format!("127.0.0.1:{}", listener.port).parse().unwrap();
    let there: SocketAddr = "8.8.8.8:80".parse().unwrap();
    let get = async |policy: Policy, answers: Vec<Vec<SocketAddr>>| {
        let lookup = Arc::new(Answers { answers, asked: AtomicUsize::new(0) });
        let fetcher = Fetcher::with_lookup(policy, limits(), lookup.clone()).unwrap();
        let url = parse_url(&format!("http://pictures.test:{}/a.png", listener.port)).unwrap();
        (fetcher.get(url).await, lookup.asked.load(Ordering::SeqCst))
    };
    // One address out of two is enough to refuse, wherever it stands.
    assert_eq!(get(Policy::Public, vec![vec![here]]).await, (Err(Refusal::FetchForbidden), 1));
    assert_eq!(get(Policy::Public, vec![vec![there, here]]).await, (Err(Refusal::FetchForbidden), 1));
    assert_eq!(get(Policy::Public, vec![vec![here, there]]).await, (Err(Refusal::FetchForbidden), 1));
    assert_eq!(listener.connections(), 0);
    // The first answer is the one connected to: the second, which would fail, is never asked for.
    let by_name = Policy::AllowList(vec!["Pictures.TEST".parse().unwrap()]);
    let nowhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let answers = vec![vec![SocketAddr::new(here.ip(), 0)], vec![nowhere]];
    assert_eq!(get(by_name, answers).await, (Ok(b"picture".to_vec()), 1));
}

#[test]
fn hosts_of_the_allow_list() {
    let check = |text: &str, expected: Option<(&str, Option<u16>)>| {
        let expected = expected.map(|(host, port)| AllowedHost { host: host.into(), port });
        assert_eq!(text.parse::<AllowedHost>().ok(), expected, "{text}");
    };
    check("Example.org", Some(("example.org", None)));
    check("example.org:80", Some(("example.org", Some(80))));
    check("0x7f.1:8080", Some(("127.0.0.1", Some(8080))));
    check("[::1]", Some(("[::1]", None)));
    check("[0:0::1]:80", Some(("[::1]", Some(80))));
    for wrong in ["", "a b", "http://a", "a/b", "a?b", "a#b", "u@a", "a:", "a:99999", "a:b", "::1", ":80"] {
        check(wrong, None);
    }
}
