//! Over real connections: clients that leave, many at once, and shutting down.

use ocellus_server::{Bind, ConnectionLimits, Serving, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::*;

/// A server on a free port; it stops when the sender is used or dropped.
fn start(engine: &Arc<Scripted>) -> (u16, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    start_app(engine.app())
}

pub(crate) fn start_app(app: axum::Router) -> (u16, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    start_app_with(app, Duration::from_secs(5))
}

/// The same, with as long for running answers after the stop.
pub(crate) fn start_app_with(
    app: axum::Router,
    drain: Duration,
) -> (u16, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    start_serving(app, Serving { drain, connections: ConnectionLimits::default() })
}

fn start_serving(app: axum::Router, how: Serving) -> (u16, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let bind = Bind { host: "127.0.0.1".into(), port: 0, allow_no_key: false };
    let listener = bind.listen(&Keys::default()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (stop, stopped) = oneshot::channel();
    let serving = serve(listener, app, how, async {
        let _ = stopped.await;
    });
    (port, stop, tokio::spawn(async { serving.await.unwrap() }))
}

pub(crate) async fn request(port: u16, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).await.unwrap();
    stream
}

pub(crate) async fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// Waits for a condition without a guess at how long it takes; the test harness bounds it.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    waited.await.expect("the condition came true");
}

#[tokio::test]
async fn an_answer_stops_when_its_client_leaves() {
    let engine = Scripted::new(vec![Step::Event(started()), Step::Hang]);
    let (port, _stop, _) = start(&engine);
    for stream in [true, false] {
        let client = request(port, &chat(json!({"stream": stream})).to_string()).await;
        until(|| engine.running.load(Ordering::SeqCst) == 1).await;
        drop(client);
        until(|| engine.running.load(Ordering::SeqCst) == 0).await;
    }
}

#[tokio::test]
async fn chunks_leave_as_they_come() {
    let text = Event::Text(TextDelta { text: "now".into(), ..TextDelta::default() });
    let engine = Scripted::new(vec![Step::Event(started()), Step::Event(text), Step::Hang]);
    let (port, _stop, _) = start(&engine);
    let mut client = request(port, &chat(json!({"stream": true})).to_string()).await;
    let mut seen = String::new();
    while !seen.contains("\"content\":\"now\"") {
        let mut piece = [0; 512];
        let n = client.read(&mut piece).await.unwrap();
        assert!(n > 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&piece[..n]));
    }
}

#[tokio::test]
async fn many_at_once() {
    let engine = Scripted::saying(&["a", "b"]);
    let (port, _stop, _) = start(&engine);
    let clients = (0..40).map(|index| async move {
        let body =
            if index % 4 == 3 { "{".into() } else { chat(json!({"stream": index % 2 == 0})).to_string() };
        rest(request(port, &body).await).await
    });
    let answers = futures_util::future::join_all(clients).await;
    for (index, answer) in answers.iter().enumerate() {
        let expected = if index % 4 == 3 { "HTTP/1.1 400" } else { "HTTP/1.1 200" };
        assert!(answer.starts_with(expected), "{answer}");
    }
    assert_eq!(engine.running.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn running_answers_are_finished_before_the_end() {
    let pause = Step::Wait(Duration::from_millis(100));
    let script = vec![Step::Event(started()), pause, Step::Event(finished(FinishReason::Stop))];
    let engine = Scripted::new(script);
    let (port, stop, serving) = start(&engine);
    let client = request(port, &chat(json!({"stream": true})).to_string()).await;
    until(|| engine.running.load(Ordering::SeqCst) == 1).await;
    stop.send(()).unwrap();
    assert!(rest(client).await.contains("data: [DONE]"));
    serving.await.unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
}

#[tokio::test]
async fn a_refused_body_is_read_to_its_end() {
    // A client that sends everything before it reads must still see why.
    let engine = Scripted::saying(&["x"]);
    let (port, _stop, _) = start(&engine);
    let answer = rest(request(port, &" ".repeat((64 << 20) + 1)).await).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("connection: close"), "{answer}");
}

/// With bounds short enough for a test.
fn start_bounded(app: axum::Router, open: usize) -> (u16, oneshot::Sender<()>) {
    let short = Duration::from_millis(200);
    let connections = ConnectionLimits { open, head: short, unread: short };
    let (port, stop, _) = start_serving(app, Serving { drain: Duration::ZERO, connections });
    (port, stop)
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed() {
    let engine = Scripted::saying(&["x"]);
    let (port, _stop) = start_bounded(engine.app(), 8);
    let answered = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    // Nothing at all, half a head, and nothing after an answer.
    for (sent, expected) in [("", ""), ("GET /health HTTP/1.1\r\nHost", ""), (answered, "HTTP/1.1 200 OK")] {
        let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        client.write_all(sent.as_bytes()).await.unwrap();
        let text = rest(client).await;
        assert!(text.starts_with(expected) && text.is_empty() == expected.is_empty(), "{sent:?}: {text}");
    }
}

#[tokio::test]
async fn a_head_that_drips_is_cut_off() {
    let engine = Scripted::saying(&["x"]);
    let (port, _stop) = start_bounded(engine.app(), 8);
    let client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut reader, mut writer) = client.into_split();
    let drip = tokio::spawn(async move {
        // Each piece comes within the bound, but the bound is for the whole head.
        while writer.write_all(b"X-Drop: 1\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut text = Vec::new();
    // A reset is an end too.
    let _ = reader.read_to_end(&mut text).await;
    assert!(drip.await.is_ok());
}

#[tokio::test]
async fn further_connections_wait_for_a_place() {
    let engine = Scripted::new(vec![Step::Event(started()), Step::Hang]);
    let (port, _stop) = start_bounded(engine.app(), 2);
    let first = request(port, &chat(json!({})).to_string()).await;
    let _second = request(port, &chat(json!({})).to_string()).await;
    until(|| engine.running.load(Ordering::SeqCst) == 2).await;
    let third = request(port, &chat(json!({})).to_string()).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(engine.requests.lock().unwrap().len(), 2);
    drop(first);
    until(|| engine.requests.lock().unwrap().len() == 3).await;
    drop(third);
}

#[tokio::test]
async fn an_answer_that_nobody_reads_ends() {
    let long = "0123456789abcdef".repeat(1 << 14);
    let text = Event::Text(TextDelta { text: long, ..TextDelta::default() });
    // More than any system keeps for a connection.
    let script = [Step::Event(started())].into_iter().chain(vec![Step::Event(text); 200]);
    let engine = Scripted::new(script.chain([Step::Hang]).collect());
    let (port, _stop) = start_bounded(engine.app(), 8);
    let _client = request(port, &chat(json!({"stream": true})).to_string()).await;
    until(|| engine.running.load(Ordering::SeqCst) == 1).await;
    until(|| engine.running.load(Ordering::SeqCst) == 0).await;
}

#[test]
fn other_machines_need_a_key() {
    let check = |host: &str, keys: &[&str], allow_no_key: bool, expected: Result<(), &str>| {
        let bind = Bind { host: host.into(), port: 0, allow_no_key };
        let listened =
            bind.listen(&Keys::new(keys.iter().copied())).map(drop).map_err(|error| error.to_string());
        match (expected, listened) {
            (Ok(()), listened) => assert_eq!(listened, Ok(()), "{host}"),
            (Err(part), listened) => assert!(listened.unwrap_err().contains(part), "{host}"),
        }
    };
    check("127.0.0.1", &[], false, Ok(()));
    check("localhost", &[], false, Ok(()));
    check("0.0.0.0", &["sk"], false, Ok(()));
    check("0.0.0.0", &[], true, Ok(()));
    check("0.0.0.0", &[], false, Err("--host 0.0.0.0 can be reached from other machines"));
    check("192.0.2.1", &["sk"], false, Err("listening on 192.0.2.1 port 0"));
    check("no such host", &[], false, Err("listening on no such host port 0"));
}
