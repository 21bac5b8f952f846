//! Downloads from a hub of our own in this process: what is moved, what is kept, and what each refusal says. Waits are
//! counted and not waited for.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use ocellus_pull::{Clock, Error, Event, Options, RepositoryName, Settings, Snapshot, cached, plan, pull};
use sha1::Digest;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];

/// What the hub does, besides what a hub does.
#[derive(Clone, Default)]
struct Behaviour {
    /// Status and error code of every answer under these paths, for so many answers.
    refuse: Vec<(&'static str, u16, &'static str)>,
    refusals: Option<usize>,
    /// Answers end after so many bytes of a file.
    cut: Option<usize>,
    /// Offsets are not understood.
    no_ranges: bool,
    /// The first byte of weights is another, for so many answers.
    corrupt: usize,
    /// The listing in place of the true one.
    listing: Option<String>,
    /// The commit in place of the true one.
    commit: Option<String>,
}

/// A hub, and beside it the store of files that it redirects to.
struct Hub {
    files: BTreeMap<&'static str, Vec<u8>>,
    address: String,
    store: String,
    behaviour: Mutex<Behaviour>,
    /// Paths with the offsets that were asked for.
    requests: Mutex<Vec<String>>,
    /// Bytes of files that were sent.
    sent: Mutex<usize>,
    /// Tokens that arrived, at the hub and at the store.
    tokens: Mutex<(Vec<String>, Vec<String>)>,
}

fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(&sha2::Sha256::digest(bytes))
}

fn git_sha1(bytes: &[u8]) -> String {
    hex(&sha1::Sha1::new().chain_update(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
}

impl Hub {
    fn start() -> Arc<Self> {
        let noise = |length: usize, seed: usize| {
            (0..length).map(|i| (i * 31 + i / 251 * seed) as u8).collect::<Vec<_>>()
        };
        let index = format!(r#"{{"weight_map": {{"a": "{}", "b": "{}"}}}}"#, SHARDS[0], SHARDS[1]);
        let files = BTreeMap::from([
            ("config.json", b"{\"a\": 1}".to_vec()),
            ("tokenizer.json", b"{}".to_vec()),
            ("model.safetensors.index.json", index.into_bytes()),
            (SHARDS[0], noise(100_000, 3)),
            (SHARDS[1], noise(50_000, 7)),
            ("extra.safetensors", noise(1000, 5)),
            ("pytorch_model.bin", noise(1000, 1)),
            ("modeling.py", b"import os".to_vec()),
            ("README.md", b"# Model".to_vec()),
        ]);
        let listener = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let address = format!("http://{}", listener.local_addr().unwrap());
            (listener, address)
        };
        let ((hub_listener, address), (store_listener, store)) = (listener(), listener());
        let hub = Arc::new(Self {
            files,
            address,
            store,
            behaviour: Mutex::default(),
            requests: Mutex::default(),
            sent: Mutex::default(),
            tokens: Mutex::default(),
        });
        let state = hub.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let at_hub = Router::new().fallback(Self::answer).with_state(state.clone());
                let at_store = Router::new().fallback(Self::store).with_state(state);
                let from = |listener| tokio::net::TcpListener::from_std(listener).unwrap();
                let (one, other) = tokio::join!(
                    axum::serve(from(hub_listener), at_hub),
                    axum::serve(from(store_listener), at_store)
                );
                one.and(other).unwrap();
            });
        });
        hub
    }

    async fn answer(State(hub): State<Arc<Self>>, request: Request) -> Response {
        let path = request.uri().path().to_owned();
        if let Some(token) = request.headers().get(header::AUTHORIZATION) {
            hub.tokens.lock().unwrap().0.push(token.to_str().unwrap().to_owned());
        }
        hub.requests.lock().unwrap().push(format!(
            "{path}{}",
            range(request.headers()).map_or(String::new(), |n| format!(" from {n}"))
        ));
        let behaviour = {
            let mut behaviour = hub.behaviour.lock().unwrap();
            let refused = behaviour.refuse.iter().find(|(part, ..)| path.contains(part)).copied();
            if let Some((_, status, code)) = refused
                && behaviour.refusals != Some(0)
            {
                behaviour.refusals = behaviour.refusals.map(|left| left - 1);
                let status = StatusCode::from_u16(status).unwrap();
                return (status, [("x-error-code", code), ("retry-after", "7")]).into_response();
            }
            behaviour.clone()
        };
        let repository = "/owner/name/resolve/0123456789abcdef0123456789abcdef01234567/";
        if path == "/api/models/owner/name/revision/main"
            || path == "/api/models/owner/name/revision/refs%2Fpr%2F1"
        {
            let commit = behaviour.commit.unwrap_or_else(|| COMMIT.to_owned());
            return format!(r#"{{"sha": "{commit}", "siblings": []}}"#).into_response();
        }
        if path == format!("/api/models/owner/name/tree/{COMMIT}") {
            return behaviour.listing.unwrap_or_else(|| hub.listing()).into_response();
        }
        match path.strip_prefix(repository) {
            Some(name) if is_large(name) => {
                let location = format!("{}/{name}?signature=secret", hub.store);
                (StatusCode::FOUND, [(header::LOCATION, location)]).into_response()
            }
            Some(name) => hub.file(name, request.headers()),
            None => StatusCode::NOT_FOUND.into_response(),
        }
    }

    async fn store(State(hub): State<Arc<Self>>, request: Request) -> Response {
        if let Some(token) = request.headers().get(header::AUTHORIZATION) {
            hub.tokens.lock().unwrap().1.push(token.to_str().unwrap().to_owned());
        }
        hub.file(request.uri().path().trim_start_matches('/'), request.headers())
    }

    fn file(&self, name: &str, headers: &HeaderMap) -> Response {
        let Some(content) = self.files.get(name) else { return StatusCode::NOT_FOUND.into_response() };
        let (mut content, all) = (content.clone(), content.len());
        let mut behaviour = self.behaviour.lock().unwrap();
        if is_large(name) && behaviour.corrupt > 0 {
            behaviour.corrupt -= 1;
            content[0] ^= 1;
        }
        let offset = range(headers).filter(|_| !behaviour.no_ranges);
        if offset.is_some_and(|offset| offset >= all) {
            return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
        }
        let content = content.split_off(offset.unwrap_or(0));
        let cut = behaviour.cut.unwrap_or(usize::MAX).min(content.len());
        *self.sent.lock().unwrap() += cut;
        let first = Bytes::copy_from_slice(&content[..cut]);
        let is_cut = cut < content.len();
        let end = stream::once(async move {
            // Bytes are on their way only when the body pauses.
            tokio::task::yield_now().await;
            if is_cut { Err(std::io::Error::other("cut")) } else { Ok(Bytes::new()) }
        });
        let body = Body::from_stream(stream::once(async { Ok(first) }).chain(end));
        let length = (header::CONTENT_LENGTH, content.len().to_string());
        match offset {
            Some(offset) => {
                let range = (header::CONTENT_RANGE, format!("bytes {offset}-{}/{all}", all - 1));
                (StatusCode::PARTIAL_CONTENT, [length, range], body).into_response()
            }
            None => (StatusCode::OK, [length], body).into_response(),
        }
    }

    fn listing(&self) -> String {
        let entry = |(name, content): (&&str, &Vec<u8>)| {
            let (size, sha1) = (content.len(), git_sha1(content));
            let large = is_large(name)
                .then(|| format!(r#", "lfs": {{"oid": "{}", "size": {size}}}"#, sha256(content)));
            format!(
                r#"{{"type": "file", "path": "{name}", "size": {size}, "oid": "{sha1}"{}}}"#,
                large.unwrap_or_default()
            )
        };
        format!("[{}]", self.files.iter().map(entry).collect::<Vec<_>>().join(","))
    }

    fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    /// Bytes of files that were sent since the last call.
    fn sent(&self) -> usize {
        std::mem::take(&mut *self.sent.lock().unwrap())
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }

    /// Bytes of the files that a checkpoint needs.
    fn needed(&self) -> usize {
        let others = ["extra.safetensors", "pytorch_model.bin", "modeling.py", "README.md"];
        self.files.iter().filter(|(name, _)| !others.contains(name)).map(|(_, content)| content.len()).sum()
    }
}

fn range(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::RANGE)?.to_str().ok()?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

/// Counts what would be waited for.
#[derive(Default)]
struct Waits(Mutex<Vec<Duration>>);

impl Clock for Waits {
    fn wait(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.0.lock().unwrap().push(duration);
        Box::pin(tokio::task::yield_now())
    }
}

/// A cache of its own for one test.
struct Place {
    folder: tempfile::TempDir,
    hub: Arc<Hub>,
    variables: Vec<(&'static str, String)>,
    waits: Arc<Waits>,
    notes: Arc<Mutex<Vec<String>>>,
    verify: bool,
}

impl Place {
    fn new() -> Self {
        let (folder, hub) = (tempfile::tempdir().unwrap(), Hub::start());
        let variables = vec![
            ("HF_ENDPOINT", hub.address.clone()),
            ("HF_HUB_CACHE", folder.path().join("hub").to_str().unwrap().to_owned()),
            ("HF_HOME", folder.path().to_str().unwrap().to_owned()),
        ];
        Self { folder, hub, variables, waits: Arc::default(), notes: Arc::default(), verify: false }
    }

    fn settings(&self) -> Settings {
        let value = |name: &str| {
            self.variables.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
        };
        Settings::from_variables(&value).unwrap()
    }

    fn options(&self) -> Options {
        let notes = self.notes.clone();
        let progress = move |event: Event<'_>| {
            if let Event::Note(text) = event {
                notes.lock().unwrap().push(text.to_owned());
            }
        };
        Options {
            clock: self.waits.clone(),
            progress: Arc::new(progress),
            verify: self.verify,
            ..Options::default()
        }
    }

    fn pull(&self) -> Result<Snapshot, Error> {
        pull(&name(), &self.settings(), &self.options())
    }

    #[track_caller]
    fn refused(&self, behaviour: Behaviour, parts: &[&str]) {
        self.hub.behave(behaviour);
        let message = self.pull().unwrap_err().to_string();
        for part in parts {
            assert!(message.contains(part), "{part:?} in: {message}");
        }
        assert!(!message.contains("secret"), "{message}");
    }

    fn blob(&self, name: &str) -> PathBuf {
        let content = &self.hub.files[name];
        let digits = if is_large(name) { sha256(content) } else { git_sha1(content) };
        self.folder.path().join("hub/models--owner--name/blobs").join(digits)
    }

    fn part(&self, name: &str) -> PathBuf {
        self.blob(name).with_extension("incomplete")
    }

    fn put_part(&self, name: &str, content: &[u8]) {
        let part = self.part(name);
        fs::create_dir_all(part.parent().unwrap()).unwrap();
        fs::write(part, content).unwrap();
    }
}

fn name() -> RepositoryName {
    "owner/name".parse().unwrap()
}

/// All files below a folder, without locks, by their paths.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else if path.extension().is_none_or(|extension| extension != "lock") {
                found.push(path.strip_prefix(folder).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_cold_download_and_one_that_has_nothing_to_do() {
    let place = Place::new();
    assert_eq!(cached(&name(), &place.settings()), None);
    let snapshot = place.pull().unwrap();
    assert_eq!(place.hub.sent(), place.hub.needed());
    let found = files(&snapshot.folder);
    let expected = ["config.json", SHARDS[0], SHARDS[1], "model.safetensors.index.json", "tokenizer.json"]
        .map(str::to_owned);
    assert_eq!(found, expected);
    for name in &found {
        assert_eq!(fs::read(snapshot.folder.join(name)).unwrap(), place.hub.files[name.as_str()], "{name}");
        assert!(place.blob(name).is_file());
    }
    let repository = place.folder.path().join("hub/models--owner--name");
    assert_eq!(snapshot.folder, repository.join("snapshots").join(COMMIT));
    assert_eq!(fs::read_to_string(repository.join("refs/main")).unwrap(), COMMIT);
    assert!(files(&repository).iter().all(|path| !path.contains("incomplete") && !path.contains("tmp")));
    assert_eq!(cached(&name(), &place.settings()), Some(snapshot.clone()));
    assert_eq!(cached(&name().at(COMMIT).unwrap(), &place.settings()), Some(snapshot.clone()));

    place.hub.requests();
    assert_eq!(place.pull().unwrap(), snapshot);
    assert_eq!((place.hub.sent(), place.hub.requests().len()), (0, 2));
    assert!(place.waits.0.lock().unwrap().is_empty());
}

#[test]
fn other_revisions_keep_their_own_reference_and_share_contents() {
    let place = Place::new();
    place.pull().unwrap();
    place.hub.sent();
    let other = name().at("refs/pr/1").unwrap();
    pull(&other, &place.settings(), &place.options()).unwrap();
    assert_eq!(place.hub.sent(), 0);
    assert!(place.folder.path().join("hub/models--owner--name/refs/refs/pr/1").is_file());
    assert!(cached(&other, &place.settings()).is_some());
}

#[test]
fn what_has_arrived_is_gone_on_with() {
    let place = Place::new();
    place.put_part(SHARDS[0], &place.hub.files[SHARDS[0]][..70_000]);
    place.put_part(SHARDS[1], &place.hub.files[SHARDS[1]]);
    place.pull().unwrap();
    assert_eq!(place.hub.sent(), place.hub.needed() - 70_000 - 50_000);
    assert!(place.hub.requests().iter().any(|request| request.ends_with(" from 70000")));
}

#[test]
fn connections_that_break_are_taken_up_again_as_long_as_bytes_come() {
    let place = Place::new();
    place.hub.behave(Behaviour { cut: Some(9000), ..Behaviour::default() });
    place.pull().unwrap();
    assert_eq!(place.hub.sent(), place.hub.needed());
    // Each wait is the first one: there was progress in between.
    let waits = place.waits.0.lock().unwrap();
    assert!(waits.len() >= 16 && waits.iter().all(|wait| *wait == Duration::from_millis(500)), "{waits:?}");
}

#[test]
fn a_server_without_offsets_starts_again() {
    let place = Place::new();
    place.put_part(SHARDS[0], &place.hub.files[SHARDS[0]][..70_000]);
    place.hub.behave(Behaviour { no_ranges: true, ..Behaviour::default() });
    place.pull().unwrap();
    assert_eq!(place.hub.sent(), place.hub.needed());
}

#[test]
fn wrong_bytes_are_found_and_fetched_again_once() {
    let place = Place::new();
    let mut part = place.hub.files[SHARDS[0]][..70_000].to_vec();
    part[12_345] ^= 0x10;
    place.put_part(SHARDS[0], &part);
    // And one that is longer than the file.
    place.put_part(SHARDS[1], &vec![0; 60_000]);
    place.pull().unwrap();
    assert_eq!(fs::read(place.blob(SHARDS[0])).unwrap(), place.hub.files[SHARDS[0]]);
    assert_eq!(fs::read(place.blob(SHARDS[1])).unwrap(), place.hub.files[SHARDS[1]]);
    let notes = place.notes.lock().unwrap();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("deleted and fetched again"), "{notes:?}");
}

#[test]
fn bytes_that_are_wrong_twice_are_an_error_and_not_kept() {
    let place = Place::new();
    let expected = sha256(&place.hub.files[SHARDS[0]]);
    place.refused(
        Behaviour { corrupt: 1000, ..Behaviour::default() },
        &["of owner/name has arrived twice with the checksum", "something between here and the hub"],
    );
    assert!(!place.blob(SHARDS[0]).exists() && cached(&name(), &place.settings()).is_none());
    place.hub.behave(Behaviour::default());
    place.pull().unwrap();
    assert_eq!(sha256(&fs::read(place.blob(SHARDS[0])).unwrap()), expected);
}

#[test]
fn files_that_rot_in_the_cache_are_found_when_asked_for() {
    let mut place = Place::new();
    place.pull().unwrap();
    let mut rotten = place.hub.files[SHARDS[1]].clone();
    rotten[7] ^= 1;
    fs::write(place.blob(SHARDS[1]), rotten).unwrap();
    place.hub.sent();
    place.pull().unwrap();
    assert_eq!(place.hub.sent(), 0);
    place.verify = true;
    place.pull().unwrap();
    assert_eq!(place.hub.sent(), 50_000);
    assert_eq!(fs::read(place.blob(SHARDS[1])).unwrap(), place.hub.files[SHARDS[1]]);
}

#[test]
fn each_refusal_says_what_to_do() {
    let place = Place::new();
    let refuse =
        |part, status, code| Behaviour { refuse: vec![(part, status, code)], ..Behaviour::default() };
    place.refused(refuse("/api/", 401, ""), &["(401)", "set HF_TOKEN"]);
    place.refused(refuse("/api/", 403, ""), &["forbids access to owner/name (403)", "set HF_TOKEN"]);
    place.refused(refuse("/api/", 404, ""), &["has no repository owner/name (404)"]);
    place.refused(refuse("/api/", 404, "RevisionNotFound"), &["owner/name has no revision \"main\" (404)"]);
    place.refused(
        refuse("/resolve/", 403, "GatedRepo"),
        &["is gated (403): ask for access at http://", "/owner/name"],
    );
    place.refused(refuse("/resolve/", 401, "GatedRepo"), &["is gated (401)"]);
    place.refused(
        refuse("/resolve/", 404, "EntryNotFound"),
        &["lists model.safetensors.index.json of owner/name"],
    );
    place.refused(refuse("/api/", 418, ""), &["status 418", "check HF_ENDPOINT"]);
    place.refused(refuse("/api/", 302, ""), &["redirect"]);
    place.refused(refuse("/tree/", 500, ""), &["fault of its own (500) after 6 attempts"]);
    place.refused(refuse("/tree/", 429, ""), &["(429): try again in 7 s"]);
    let seconds: Vec<_> = place.waits.0.lock().unwrap().iter().map(Duration::as_secs).collect();
    assert_eq!(seconds, [7, 7, 7, 7, 8, 7, 7, 7, 7, 8]);
}

#[test]
fn faults_that_pass_are_waited_for() {
    for status in [429, 500, 503] {
        let place = Place::new();
        let refuse = vec![("/", status, "")];
        place.hub.behave(Behaviour { refuse, refusals: Some(2), ..Behaviour::default() });
        place.pull().unwrap();
        assert_eq!(*place.waits.0.lock().unwrap(), [Duration::from_secs(7); 2], "{status}");
    }
}

#[test]
fn a_hub_that_is_not_there() {
    let mut place = Place::new();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    place.variables.push(("HF_ENDPOINT", format!("http://127.0.0.1:{port}")));
    let error = place.pull().unwrap_err();
    let message = error.to_string();
    assert!(
        error.is_of_network() && message.contains("127.0.0.1 can't be reached for owner/name after 3"),
        "{message}"
    );
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let mut place = Place::new();
    place.variables.push(("HF_TOKEN", "hf_secret".to_owned()));
    place.pull().unwrap();
    let (at_hub, at_store) = place.hub.tokens.lock().unwrap().clone();
    assert!(!at_hub.is_empty() && at_hub.iter().all(|token| token == "Bearer hf_secret"), "{at_hub:?}");
    assert_eq!(at_store, [""; 0]);
    place.refused(
        Behaviour { refuse: vec![("/api/", 401, "")], ..Behaviour::default() },
        &["is not accepted"],
    );
}

#[test]
fn without_a_network_nothing_is_asked() {
    let mut place = Place::new();
    place.variables.push(("HF_HUB_OFFLINE", "1".to_owned()));
    place
        .refused(Behaviour::default(), &["owner/name is not whole in the cache", "HF_HUB_OFFLINE=1 forbids"]);
    assert!(plan(&name(), &place.settings(), &place.options()).is_err());
    assert_eq!(place.hub.requests(), [""; 0]);
}

#[test]
fn a_hub_that_lies_writes_nothing_of_its_own() {
    let place = Place::new();
    let with = |listing: &str| Behaviour { listing: Some(listing.to_owned()), ..Behaviour::default() };
    let sha1 = "a".repeat(40);
    let file = |path: &str, size: u64, oid: &str| {
        format!(r#"{{"type": "file", "path": "{path}", "size": {size}, "oid": "{oid}"}}"#)
    };
    place.refused(with("[]"), &["owner/name has no config.json"]);
    place.refused(with("nonsense"), &["a listing that can't be read"]);
    place.refused(
        with(&format!("[{}]", file("config.json", 8, "../../../../evil"))),
        &["config.json has the checksum"],
    );
    place.refused(
        with(&format!("[{}]", file("config.json", u64::MAX, &sha1))),
        &["config.json has 18446744073709551615 bytes"],
    );
    let twice = format!("[{0}, {0}]", file("config.json", 8, &sha1));
    place.refused(with(&twice), &["config.json twice"]);
    let evil = file("../../../evil.safetensors", 8, &sha1);
    place.refused(
        with(&format!("[{}, {evil}]", file("config.json", 8, &sha1))),
        &["has no model.safetensors"],
    );
    let commit = Some("../../../evil".to_owned());
    place.refused(Behaviour { commit, ..Behaviour::default() }, &["commit \"../../../evil\""]);
    for path in files(place.folder.path()) {
        assert!(
            !path.contains("evil")
                && (path.starts_with("hub/models--owner--name/") || path == "hub/CACHEDIR.TAG"),
            "{path}"
        );
    }
}

#[test]
fn a_plan_writes_nothing_and_says_what_is_missing() {
    let place = Place::new();
    let found = plan(&name(), &place.settings(), &place.options()).unwrap();
    assert_eq!((found.bytes(), found.missing()), (place.hub.needed() as u64, place.hub.needed() as u64));
    assert_eq!(found.config, "{\"a\": 1}");
    assert_eq!(files(place.folder.path()), [""; 0]);
    place.put_part(SHARDS[0], &[0; 1000]);
    let found = plan(&name(), &place.settings(), &place.options()).unwrap();
    assert_eq!(found.missing(), place.hub.needed() as u64 - 1000);
    place.pull().unwrap();
    place.hub.sent();
    assert_eq!(plan(&name(), &place.settings(), &place.options()).unwrap().missing(), 0);
    assert_eq!(place.hub.sent(), 0);
}

#[test]
fn weights_can_be_declined_when_the_small_files_are_known() {
    let place = Place::new();
    let before_weights = |folder: &Path, bytes: u64| {
        let config = fs::read_to_string(folder.join("config.json")).unwrap();
        Err(format!("{config} of {bytes} bytes is too large"))
    };
    let options = Options { before_weights: Some(Arc::new(before_weights)), ..place.options() };
    let error = pull(&name(), &place.settings(), &options).unwrap_err();
    assert_eq!(error.to_string(), "{\"a\": 1} of 150000 bytes is too large");
    assert_eq!(place.hub.sent(), place.hub.needed() - 150_000);
    assert_eq!(cached(&name(), &place.settings()), None);
}

#[test]
fn snapshots_without_links_are_files() {
    let mut place = Place::new();
    place.variables.push(("HF_HUB_DISABLE_SYMLINKS", "1".to_owned()));
    let snapshot = place.pull().unwrap();
    for name in files(&snapshot.folder) {
        assert!(!snapshot.folder.join(&name).is_symlink(), "{name}");
    }
    place.hub.sent();
    assert_eq!(place.pull().unwrap(), snapshot);
    assert_eq!(place.hub.sent(), 0);
    assert_eq!(cached(&name(), &place.settings()), Some(snapshot));
}

#[test]
fn two_downloads_at_once_move_every_byte_once() {
    let place = Place::new();
    std::thread::scope(|scope| {
        let both = [scope.spawn(|| place.pull()), scope.spawn(|| place.pull())];
        for one in both {
            one.join().unwrap().unwrap();
        }
    });
    assert_eq!(place.hub.sent(), place.hub.needed());
}
