//! `ocellus serve`: the HTTP server.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ocellus_server::fetch::{AllowedHost, Limits, Policy};
use ocellus_server::{
    AllowedOrigin, Bind, ConnectionLimits, Error, Keys, MediaRoot, ModelNames, Page, PublicUrl,
    SamplingDefaults, Serving, Settings, State, app, serve, starting,
};

use crate::Failure;
use crate::log::LogFormat;
use crate::model::ModelArguments;
use crate::sample_call;

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Name under which the model answers [default: the name of the folder].
    #[arg(long, value_name = "NAME")]
    model_name: Option<String>,
    /// Answer to this name too. Can be given several times.
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// Don't answer to the names of the hosted service, such as qwen-vl-max.
    #[arg(long)]
    no_hosted_names: bool,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 takes any free one.
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Accept only requests with this key. Can be given several times.
    #[arg(long, value_name = "KEY", env = "OCELLUS_API_KEY", hide_env_values = true)]
    api_key: Vec<String>,
    /// Listen on an address that other machines reach without asking them for a key.
    #[arg(long)]
    allow_no_key: bool,
    /// From where pictures may be fetched by URL.
    #[arg(long, value_enum, default_value_t)]
    media_fetch: MediaFetch,
    /// A host for `--media-fetch allow-list`. Can be given several times.
    #[arg(long, value_name = "HOST[:PORT]")]
    media_allow: Vec<AllowedHost>,
    /// Most seconds that fetching one picture may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    media_timeout: u64,
    /// Where clients reach this server if something in between changes its address; DashScope's SDK uploads local files
    /// there.
    #[arg(long, value_name = "URL")]
    public_url: Option<PublicUrl>,
    /// A site whose pages may call this server from a browser, such as https://example.org; * for all. Pages of this
    /// machine may always, others never unless there are keys. Can be given several times.
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<AllowedOrigin>,
    /// Let requests name files below this folder, as file:///…
    #[arg(long, value_name = "DIR")]
    media_root: Option<PathBuf>,
    /// Use no network but the connections of clients: nothing is fetched, whatever --media-fetch says, and a model only
    /// read from a folder or the cache.
    #[arg(long)]
    offline: bool,
    /// Whose sampling defaults hold for requests that name none: the checkpoint's own, or the hosted service's.
    #[arg(long, value_enum, default_value_t)]
    defaults: Defaults,
    /// Say nothing in answers that the dialects don't know, such as the sizes of pictures.
    #[arg(long)]
    no_extensions: bool,
    /// Show no page at /, on which the model can be tried.
    #[arg(long)]
    no_page: bool,
    /// Most tokens of an answer; also its length when a request names none.
    #[arg(long, value_name = "TOKENS", default_value_t = 8192, value_parser = at_least_one)]
    max_completion_tokens: usize,
    /// Seconds that running answers get to finish after the signal to stop.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=3600))]
    drain_timeout: u64,
    /// Connections that may be open at the same time; further ones wait.
    #[arg(long, value_name = "COUNT", default_value_t = 512, value_parser = at_least_one)]
    max_connections: usize,
    /// How lines of the log are written.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// File with settings: each is a flag's long name and its value, as --print-config writes them. A flag wins over
    /// the environment (OCELLUS_PORT for --port, and so on), that over the file.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print the settings in effect as such a file, and stop.
    #[arg(long)]
    pub(crate) print_config: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Defaults {
    /// The checkpoint's own (generation_config.json).
    #[default]
    Weights,
    /// The hosted service's.
    Hosted,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum MediaFetch {
    /// Public addresses only: not this machine, not its local network.
    #[default]
    Public,
    /// Nowhere; pictures come as data URIs.
    Off,
    /// The hosts of --media-allow only.
    AllowList,
    /// Everywhere, this machine and its local network included.
    Any,
}

/// What it means.
#[derive(Debug)]
pub(crate) struct Serve {
    model: ModelArguments,
    name: String,
    bind: Bind,
    settings: Settings,
    serving: Serving,
    /// No network but the connections of clients.
    offline: bool,
}

impl Arguments {
    pub(crate) fn log_format(&self) -> LogFormat {
        self.log_format
    }

    pub(crate) fn parse(self) -> Result<Serve, Failure> {
        let usage = |message: &str| Err(Failure::Usage(message.to_owned()));
        let other_names = if self.model_name.is_none() { self.model.other_names() } else { Vec::new() };
        let name = self.model_name.unwrap_or_else(|| self.model.name());
        if name.is_empty() || self.alias.iter().any(String::is_empty) {
            return usage("a model's name must not be empty");
        }
        // A key with other characters could never arrive in a header.
        let unusable = |key: &String| key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic());
        if self.api_key.iter().any(unusable) {
            return usage("--api-key must be visible ASCII characters without spaces");
        }
        let media_fetch = match (self.media_fetch, self.media_allow.is_empty()) {
            (MediaFetch::AllowList, true) => {
                return usage("--media-fetch allow-list needs at least one --media-allow HOST[:PORT]");
            }
            (MediaFetch::AllowList, false) => Policy::AllowList(self.media_allow),
            (_, false) => return usage("--media-allow has an effect only with --media-fetch allow-list"),
            (MediaFetch::Public, true) => Policy::Public,
            (MediaFetch::Off, true) => Policy::Off,
            (MediaFetch::Any, true) => Policy::Any,
        };
        let media_fetch = if self.offline { Policy::Off } else { media_fetch };
        let media_root = self.media_root.as_deref().map(MediaRoot::new).transpose();
        let media_root = media_root.map_err(|error| Failure::Usage(error.to_string()))?;
        let file_timeout = Duration::from_secs(self.media_timeout);
        let names = ModelNames::own(name.clone());
        let names = if self.no_hosted_names { names } else { names.with_hosted_names() };
        let settings = Settings {
            names: self.alias.into_iter().chain(other_names).fold(names, ModelNames::with_alias),
            keys: Keys::new(self.api_key.iter().map(String::as_str)),
            media_fetch,
            media_root,
            extensions: !self.no_extensions,
            page: if self.no_page { Page::Off } else { Page::Shown },
            sampling_defaults: match self.defaults {
                Defaults::Weights => SamplingDefaults::Weights,
                Defaults::Hosted => SamplingDefaults::Hosted,
            },
            media_limits: Limits { file_timeout, request_timeout: file_timeout * 4, ..Limits::default() },
            public_url: self.public_url,
            allowed_origins: self.allow_origin,
            max_completion_tokens: self.max_completion_tokens,
        };
        let bind = Bind { host: self.host, port: self.port, allow_no_key: self.allow_no_key };
        let serving = Serving {
            drain: Duration::from_secs(self.drain_timeout),
            connections: ConnectionLimits { open: self.max_connections, ..ConnectionLimits::default() },
        };
        Ok(Serve { model: self.model, name, bind, settings, serving, offline: self.offline })
    }
}

impl Serve {
    pub(crate) fn apply(self) -> Result<(), Failure> {
        // Before minutes of loading: a port that is taken should be seen at once.
        let listener = self.bind.listen(&self.settings.keys).map_err(|error| match error {
            exposed @ Error::Exposed { .. } => Failure::Usage(exposed.to_string()),
            other => Failure::Failed(other.into()),
        })?;
        let address = listener.local_addr()?;
        let with_key = !self.settings.keys.is_empty();
        let page = self.settings.page;
        let (router, opening) = starting(page);
        let Self { model, name, settings, serving, offline, .. } = self;

        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let served = runtime.block_on(async {
            let stop = stop_signal(serving.drain)?;
            let mut serving = tokio::spawn(serve(listener, router, serving, stop));
            let mut loading = tokio::task::spawn_blocking(move || model.load(offline.then_some("--offline")));
            let engine = tokio::select! {
                // Stopped, or no longer able to accept connections, before there was a model.
                served = &mut serving => return Ok(served??),
                loaded = &mut loading => loaded??,
            };
            opening.open(app(State::new(Arc::new(engine), settings)?));
            announce(&sample_call::text(&url(address), &name, with_key, page));
            Ok(serving.await??)
        });
        // A model that is still being loaded, or an answer that was cut off, must not hold the process up.
        runtime.shutdown_background();
        served
    }
}

/// Tells on the standard output that the server is ready. A reader who has gone is no reason to stop.
fn announce(text: &str) {
    let mut output = std::io::stdout();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

/// The base of all paths, as a client on this machine would write it.
fn url(address: SocketAddr) -> String {
    // "Every address" is none that a client could connect to.
    match address {
        address if address.ip().is_unspecified() => format!("http://localhost:{}", address.port()),
        address => format!("http://{address}"),
    }
}

/// Is over after the first Ctrl-C or SIGTERM. A second one ends the process where it stands.
fn stop_signal(drain: Duration) -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    #[cfg(unix)]
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut signals = async move || {
        #[cfg(unix)]
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    };
    Ok(async move {
        signals().await;
        tracing::warn!("stopping: running answers have {} s; a second signal ends them", drain.as_secs());
        tokio::spawn(async move {
            signals().await;
            std::process::exit(1);
        });
    })
}

/// Reads a number that is not zero.
fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse::<usize>()
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| "expected a number from 1".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(line: &str) -> Result<Serve, String> {
        let words = ["serve"].into_iter().chain(line.split_whitespace());
        let typed = Typed::try_parse_from(words).map_err(|error| error.to_string())?;
        typed.arguments.parse().map_err(|failure| match failure {
            Failure::Usage(message) => message,
            Failure::Failed(error) => panic!("{error:#}"),
        })
    }

    #[track_caller]
    fn refused(line: &str, part: &str) {
        let message = parse(line).map(drop).expect_err(line);
        assert!(message.contains(part), "{line}: {message}");
    }

    #[test]
    fn defaults() {
        let serve = parse("").unwrap();
        assert_eq!(
            (serve.name.as_str(), serve.bind.host.as_str(), serve.bind.port),
            ("ocellus-demo", "127.0.0.1", 8000)
        );
        assert_eq!(serve.settings.media_fetch, Policy::Public);
        assert_eq!(serve.settings.media_limits, Limits::default());
        assert!(serve.settings.names.knows("qwen-vl-max") && serve.settings.keys.is_empty());
        assert_eq!(parse("--model /models/Eye-3B/").unwrap().name, "Eye-3B");
        assert_eq!(parse("--model .").unwrap().name, "cli");
        assert_eq!(parse("--model /").unwrap().name, "model");
    }

    #[test]
    fn names_and_policies() {
        let serve = parse("--model-name eye --alias i --no-hosted-names").unwrap();
        assert_eq!(serve.settings.names.iter().collect::<Vec<_>>(), ["eye", "i"]);
        let serve =
            parse("--media-fetch allow-list --media-allow Example.org --media-allow 10.0.0.7:80").unwrap();
        let hosts = ["example.org", "10.0.0.7:80"].map(|host| host.parse().unwrap());
        assert_eq!(serve.settings.media_fetch, Policy::AllowList(hosts.into()));
        assert_eq!(parse("--media-fetch off").unwrap().settings.media_fetch, Policy::Off);
        assert_eq!(parse("--media-fetch any").unwrap().settings.media_fetch, Policy::Any);
    }

    #[test]
    fn what_operators_decide() {
        let serve = parse("--allow-origin https://a.example --allow-origin *").unwrap();
        let origins = ["https://a.example", "*"].map(|origin| origin.parse().unwrap());
        assert_eq!(serve.settings.allowed_origins, origins);
        let serve = parse("").unwrap();
        assert_eq!((serve.serving.drain, serve.settings.media_root), (Duration::from_secs(30), None));
        assert_eq!(serve.settings.sampling_defaults, SamplingDefaults::Weights);
        assert_eq!(serve.settings.page, Page::Shown);
        assert_eq!(parse("--no-page").unwrap().settings.page, Page::Off);
        assert_eq!(serve.serving.connections, ConnectionLimits::default());
        let serve = parse("--drain-timeout 0 --defaults hosted --media-root . --max-connections 7").unwrap();
        assert_eq!(serve.serving.drain, Duration::ZERO);
        assert_eq!(serve.serving.connections.open, 7);
        assert_eq!(serve.settings.media_root, Some(MediaRoot::new(".".as_ref()).unwrap()));
        assert_eq!(serve.settings.sampling_defaults, SamplingDefaults::Hosted);
        assert_eq!(parse("--offline --media-fetch any").unwrap().settings.media_fetch, Policy::Off);
        refused("--max-connections 0", "expected a number from 1");
        refused("--drain-timeout 3601", "3601 is not in 0..=3600");
        refused("--media-root /no/such/folder", "--media-root /no/such/folder: ");
        refused("--defaults mine", "possible values: weights, hosted");
        refused("--log-format xml", "possible values: text, json");
    }

    #[test]
    fn arguments_that_can_t_be_meant() {
        refused("--port 65536", "65536");
        refused("--port x", "invalid value 'x'");
        refused("--media-fetch some", "possible values: public, off, allow-list, any");
        refused("--media-fetch allow-list", "needs at least one --media-allow");
        refused("--media-allow example.org", "only with --media-fetch allow-list");
        refused("--media-fetch allow-list --media-allow http://x", "is not a host");
        refused("--media-timeout 0", "0 is not in 1..=3600");
        refused("--public-url example.org", "is not a URL");
        refused("--allow-origin example.org", "is not an origin");
        refused("--max-completion-tokens 0", "expected a number from 1");
        refused("--api-key=", "--api-key must be visible ASCII");
        refused("--api-key schlüssel", "--api-key must be visible ASCII");
        refused("--model-name=", "a model's name must not be empty");
        refused("--context -1", "unexpected argument");
        refused("--modle x", "unexpected argument");
        refused("x", "unexpected argument");
    }

    #[test]
    fn urls_for_clients() {
        let check = |address: &str, expected: &str| assert_eq!(url(address.parse().unwrap()), expected);
        check("127.0.0.1:8000", "http://127.0.0.1:8000");
        check("[::1]:8000", "http://[::1]:8000");
        check("0.0.0.0:80", "http://localhost:80");
        check("[::]:80", "http://localhost:80");
    }
}
