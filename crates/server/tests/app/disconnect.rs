//! A client who leaves gives its place back, and the engine stops within two tokens: with the tiny model of the
//! repository, really computing, over real connections, in every way that an answer is given.

use ocellus_engine::{Engine, Options, Source};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::*;
use crate::connections::{start_app, until};
use crate::operations::{metrics, number};

/// A running server and its engine.
struct House {
    engine: Engine,
    app: axum::Router,
    port: u16,
    _stop: tokio::sync::oneshot::Sender<()>,
}

fn house() -> House {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/nano");
    // Chunks so small that a long prompt takes a while.
    let options = Options { prefill_chunk: 16, ..Options::default() };
    let engine = Engine::load(&Source::folder(folder), &options, &|_| {}).unwrap();
    let app = ocellus_server::app(State::new(Arc::new(engine.clone()), Settings::new("eye")).unwrap());
    let (port, stop, _) = start_app(app.clone());
    House { engine, app, port, _stop: stop }
}

const NATIVE: &str = "/api/v1/services/aigc/multimodal-generation/generation";

/// One way to be answered: a path, one more header, and the body's keys for it.
#[derive(Clone, Copy, Debug)]
struct Way {
    path: &'static str,
    header: &'static str,
    is_streamed: bool,
}

const WAYS: [Way; 4] = [
    Way { path: CHAT, header: "", is_streamed: false },
    Way { path: CHAT, header: "", is_streamed: true },
    Way { path: NATIVE, header: "", is_streamed: false },
    Way { path: NATIVE, header: "X-DashScope-SSE: enable\r\n", is_streamed: true },
];

impl House {
    /// Sends a request for a long answer: the tokens that end a turn are left out.
    async fn ask(&self, way: Way, text: &str, after_the_body: &str) -> TcpStream {
        let parameters =
            json!({"max_tokens": 8000, "temperature": 1.9, "logit_bias": {"2050": -100, "2048": -100}});
        let body = if way.path == NATIVE {
            let messages = json!([{"role": "user", "content": [{"text": text}]}]);
            json!({"model": "eye", "input": {"messages": messages}, "parameters": parameters})
        } else {
            let mut body = parameters;
            body["model"] = json!("eye");
            body["stream"] = json!(way.is_streamed);
            body["messages"] = json!([{"role": "user", "content": text}]);
            body
        }
        .to_string();
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: x\r\n{}Content-Length: {}\r\n\r\n",
            way.path,
            way.header,
            body.len()
        );
        let mut client = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        client.write_all((head + &body + after_the_body).as_bytes()).await.unwrap();
        client
    }

    fn tokens(&self) -> u64 {
        self.engine.load_now().generated_tokens
    }

    /// Closes the connection, waits for the engine to be idle, and gives the tokens it generated in between.
    async fn tokens_after_leaving(&self, client: TcpStream) -> u64 {
        let before = self.tokens();
        drop(client);
        until(|| self.engine.load_now().running == 0).await;
        let page = metrics(&self.app).await;
        for gauge in ["num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"] {
            assert_eq!(number(&page, gauge, ""), 0.0, "{gauge}");
        }
        assert_eq!(number(&page, "generation_tokens_total", ""), self.tokens() as f64);
        self.tokens() - before
    }
}

/// The tiny model makes a token in a fraction of a millisecond, less than a busy machine may take to look at a closed
/// connection: of some attempts the middle one counts.
const ATTEMPTS: usize = 7;

async fn check(house: &House, way: Way, after_the_body: &str) {
    let mut counts = Vec::new();
    for _ in 0..ATTEMPTS {
        let before = house.tokens();
        let client = house.ask(way, "Hi", after_the_body).await;
        until(|| house.tokens() >= before + 5).await;
        assert_eq!(number(&metrics(&house.app).await, "num_requests_running", ""), 1.0);
        counts.push(house.tokens_after_leaving(client).await);
    }
    counts.sort_unstable();
    assert!(counts[ATTEMPTS / 2] <= 2, "{way:?}: tokens after the client left: {counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_ends_within_two_tokens_of_its_client() {
    let house = house();
    for way in WAYS {
        check(&house, way, "").await;
    }
    let page = metrics(&house.app).await;
    assert_eq!(number(&page, "request_success_total", "\"abort\""), (WAYS.len() * ATTEMPTS) as f64);
}

/// Some old clients end a body with a line break that its length does not count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn also_when_more_came_than_the_request() {
    let house = house();
    for way in WAYS {
        check(&house, way, "\r\n").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_is_given_up_with_its_client() {
    let house = house();
    let text = "word ".repeat(8000);
    for way in WAYS {
        let before = house.tokens();
        let client = house.ask(way, &text, "").await;
        until(|| house.engine.load_now().running == 1).await;
        assert_eq!(house.tokens_after_leaving(client).await, 0, "{way:?}");
        assert_eq!(house.tokens(), before, "{way:?}: the prompt was not long enough for this test");
    }
}
