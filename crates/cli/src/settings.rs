//! One file with every flag of a command: `--config FILE` reads it, `--print-config` writes it.
//!
//! The flags are defined once, by clap, and the file knows only what clap knows: a key is a flag's long name, and its
//! value takes the place of the flag's default. So a flag on the command line wins over the environment, that over the
//! file, and the file over what is built in; and a new flag is a new setting without a line here.

use std::fmt::Write;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::de::{DeTable, DeValue};

/// Flags that are about this one call and no settings.
const NO_SETTINGS: [&str; 4] = ["help", "version", "config", "print_config"];

/// Flags whose values are printed for nobody.
const SECRETS: [&str; 1] = ["api_key"];

/// The command with the settings of a file as defaults.
///
/// # Errors
/// One line that names the file, the line in it and what is wrong there.
pub(crate) fn with_file(command: Command, path: &Path) -> Result<Command, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    with_text(command, &text).map_err(|(line, reason)| match line {
        Some(line) => format!("{} line {line}: {reason}", path.display()),
        None => format!("{}: {reason}", path.display()),
    })
}

/// The command with an environment variable for each setting: `OCELLUS_PORT` for `--port`.
pub(crate) fn with_environment(command: Command) -> Command {
    command.mut_args(|arg| match arg.get_long() {
        Some(name) if is_setting(&arg) => {
            let variable = format!("OCELLUS_{}", name.replace('-', "_").to_uppercase());
            // Not shown in the help, where it would only repeat the flag's name.
            arg.env(variable).hide_env(true)
        }
        _ => arg,
    })
}

fn with_text(mut command: Command, text: &str) -> Result<Command, (Option<usize>, String)> {
    let line_of = |offset: usize| 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
    let table = DeTable::parse(text)
        .map_err(|error| (error.span().map(|span| line_of(span.start)), error.message().trim().to_owned()))?;
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        let fault = |reason: String| (Some(line_of(key.span().start)), reason);
        let name = key.get_ref().as_ref();
        let Some(arg) = settings(&command).find(|arg| arg.get_long() == Some(name)) else {
            return Err(fault(format!("there is no setting {name:?}")));
        };
        let (id, values) = (arg.get_id().clone(), values(arg, value.get_ref()));
        let values = values.map_err(|expected| fault(format!("{name} must be {expected}")))?;
        // An empty list is the same as no setting.
        if !values.is_empty() {
            command = command
                .mut_args(|arg| if *arg.get_id() == id { arg.default_values(values.clone()) } else { arg });
        }
        // Each value alone, so that what is wrong with it is said with its line.
        let alone = command.clone().try_get_matches_from([command.get_name()]);
        if let Err(error) = alone
            && error.kind() != clap::error::ErrorKind::DisplayHelp
        {
            let message = error.to_string();
            let first = message.lines().next().unwrap_or_default();
            return Err(fault(first.strip_prefix("error: ").unwrap_or(first).to_owned()));
        }
    }
    Ok(command)
}

/// A value as it would be typed.
fn values(arg: &Arg, value: &DeValue<'_>) -> Result<Vec<String>, &'static str> {
    let scalar = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        DeValue::Integer(number) => {
            i128::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number.to_string())
        }
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        _ => None,
    };
    match (arg.get_action(), value) {
        (ArgAction::SetTrue, DeValue::Boolean(value)) => Ok(vec![value.to_string()]),
        (ArgAction::SetTrue, _) => Err("true or false"),
        (ArgAction::Append, DeValue::Array(items)) => {
            items.iter().map(|item| scalar(item.get_ref())).collect::<Option<_>>().ok_or("a list of texts")
        }
        (ArgAction::Append, value) => scalar(value).map(|value| vec![value]).ok_or("a list of texts"),
        (_, value) => scalar(value).map(|value| vec![value]).ok_or("a text or a number"),
    }
}

/// The settings in effect, as a file that sets them again. Secrets are left out, unset ones are comments.
pub(crate) fn print(command: &Command, matches: &ArgMatches) -> String {
    let mut text = String::from(
        "# Settings of `ocellus serve`. A flag on the command line wins over an environment\n\
                                 # variable, that over this file, and this file over the defaults.\n",
    );
    for arg in settings(command) {
        let Some(name) = arg.get_long() else { continue };
        let id = arg.get_id().as_str();
        let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
        text.push('\n');
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines() {
            // Writing into a String can't fail.
            let _ = writeln!(text, "# {line}");
        }
        let possible: Vec<_> =
            arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        if !possible.is_empty() && !is_switch {
            let _ = writeln!(text, "# One of: {}.", possible.join(", "));
        }
        let raw: Vec<String> = matches
            .get_raw(id)
            .map(|values| values.map(|value| value.to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        let written = match arg.get_action() {
            ArgAction::SetTrue => matches.get_flag(id).to_string(),
            ArgAction::Append => {
                format!("[{}]", raw.iter().map(|value| literal(value)).collect::<Vec<_>>().join(", "))
            }
            _ => raw.first().map(|value| literal(value)).unwrap_or_default(),
        };
        let source = match matches.value_source(id) {
            Some(ValueSource::EnvVariable) => " # from the environment",
            Some(ValueSource::CommandLine) => " # from the command line",
            _ => "",
        };
        let _ = match (SECRETS.contains(&id), raw.is_empty()) {
            (true, false) => writeln!(text, "# {name} = {} set, not shown", raw.len()),
            (_, true) if !is_switch => writeln!(text, "# {name} ="),
            _ => writeln!(text, "{name} = {written}{source}"),
        };
    }
    text
}

fn settings(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| is_setting(arg))
}

fn is_setting(arg: &Arg) -> bool {
    !NO_SETTINGS.contains(&arg.get_id().as_str())
}

/// A number as a number, everything else as a text.
fn literal(value: &str) -> String {
    if value.parse::<i64>().is_ok_and(|number| number.to_string() == value) {
        return value.to_owned();
    }
    let mut text = String::from("\"");
    for character in value.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            control if control.is_control() => {
                let _ = write!(text, "\\u{:04X}", u32::from(control));
            }
            other => text.push(other),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        use clap::Args;
        crate::serve::Arguments::augment_args(Command::new("serve"))
    }

    fn matches(text: &str, line: &str) -> Result<(Command, ArgMatches), (Option<usize>, String)> {
        let command = with_text(command(), text)?;
        let words = ["serve"].into_iter().chain(line.split_whitespace());
        let matches = command.clone().try_get_matches_from(words).unwrap();
        Ok((command, matches))
    }

    #[track_caller]
    fn refused(text: &str, line: usize, part: &str) {
        let (found, reason) = matches(text, "").map(drop).expect_err(text);
        assert_eq!(found, Some(line), "{text}: {reason}");
        assert!(reason.contains(part), "{text}: {reason}");
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let (_, found) = matches("", "").unwrap();
        assert_eq!(found.get_one::<u16>("port"), Some(&8000));
        let file = "# Ours\nport = 9000\nhost = \"::1\"\nno-hosted-names = true\nalias = [\"a\", \"b\"]\n";
        let (_, found) = matches(file, "").unwrap();
        assert_eq!(found.get_one::<u16>("port"), Some(&9000));
        assert_eq!(found.get_one::<String>("host").unwrap(), "::1");
        assert!(found.get_flag("no_hosted_names"));
        assert_eq!(found.get_many::<String>("alias").unwrap().collect::<Vec<_>>(), ["a", "b"]);
        let (_, found) = matches(file, "--port 7 --alias c").unwrap();
        assert_eq!(found.get_one::<u16>("port"), Some(&7));
        assert_eq!(found.get_many::<String>("alias").unwrap().collect::<Vec<_>>(), ["c"]);
        assert_eq!(found.get_one::<String>("host").unwrap(), "::1");
        assert!(matches("alias = []", "").is_ok());
        assert!(matches("port = \"80\"\nalias = \"one\"", "").is_ok());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        refused("port = 1\n\nprot = 2\n", 3, "there is no setting \"prot\"");
        refused("config = \"x\"", 1, "there is no setting \"config\"");
        refused("\n[server]\nport = 1\n", 2, "there is no setting \"server\"");
        refused("host = \"a\"\nport = 65536\n", 2, "65536");
        refused("port = [1]", 1, "port must be a text or a number");
        refused("no-hosted-names = \"yes\"", 1, "no-hosted-names must be true or false");
        refused("alias = [1, [2]]", 1, "alias must be a list of texts");
        refused("media-fetch = \"some\"", 1, "some");
        refused("port = 1\nport = 2\n", 2, "");
        refused("port = \n", 1, "");
        refused("x", 1, "");
    }

    #[test]
    fn what_is_printed_is_read_back_the_same() {
        let line = "--port 9 --alias a\"\\b --alias ä --no-hosted-names --media-timeout 7 --model-name 1.5";
        let (command, found) = matches("host = \"::1\"", line).unwrap();
        let printed = print(&command, &found);
        let (command, again) = matches(&printed, "").unwrap();
        let without_sources = |text: &str| text.replace(" # from the command line", "");
        assert_eq!(without_sources(&printed), print(&command, &again));
        assert!(printed.contains("\nport = 9 # from the command line\n"), "{printed}");
        assert!(
            printed.contains("\nhost = \"::1\"\n") && printed.contains("\nno-hosted-names = true"),
            "{printed}"
        );
        assert!(printed.contains("\n# model =\n") && printed.contains("# Port to listen on"), "{printed}");
        // Every flag is there.
        for arg in settings(&command) {
            let name = arg.get_long().unwrap();
            assert!(
                printed.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{name} ="))),
                "{name}"
            );
        }
    }

    #[test]
    fn keys_are_not_printed() {
        let (command, found) = matches("api-key = [\"sk-secret-1\", \"sk-secret-2\"]", "").unwrap();
        let printed = print(&command, &found);
        assert!(
            printed.contains("\n# api-key = 2 set, not shown\n") && !printed.contains("secret-"),
            "{printed}"
        );
    }
}
