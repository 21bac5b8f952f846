//! Recordings of the emulated device: lists of what was asked for, to be done again.

use std::{collections::HashMap, sync::Arc};

use ocellus_kernels::cuda::{Argument, Failure, Function, Launch};

/// What can be recorded.
#[derive(Debug)]
pub(crate) enum Command {
    Launch { function: Function, launch: Launch, arguments: Vec<Argument> },
    Copy { from: u64, to: u64, bytes: usize },
    Fill { to: u64, value: u8, bytes: usize },
}

/// All recordings by their handles, and the one that is under way.
#[derive(Debug, Default)]
pub(crate) struct Recordings {
    open: Option<Vec<Command>>,
    done: HashMap<u64, Arc<Vec<Command>>>,
    next: u64,
}

impl Recordings {
    pub(crate) fn begin(&mut self) -> Result<(), Failure> {
        self.expect_none("a second recording")?;
        self.open = Some(Vec::new());
        Ok(())
    }

    pub(crate) fn end(&mut self) -> Result<u64, Failure> {
        let Some(commands) = self.open.take() else { return Err(failed("no recording was begun")) };
        self.next += 1;
        self.done.insert(self.next, Arc::new(commands));
        Ok(self.next)
    }

    /// Gives the command back when no recording is under way.
    pub(crate) fn record(&mut self, command: Command) -> Option<Command> {
        match &mut self.open {
            Some(commands) => {
                commands.push(command);
                None
            }
            None => Some(command),
        }
    }

    pub(crate) fn get(&self, recording: u64) -> Result<Arc<Vec<Command>>, Failure> {
        self.expect_none("a replay")?;
        self.done.get(&recording).cloned().ok_or_else(|| failed("there is no such recording"))
    }

    pub(crate) fn forget(&mut self, recording: u64) -> Result<(), Failure> {
        self.done.remove(&recording).map(|_| ()).ok_or_else(|| failed("there is no such recording"))
    }

    /// An error when a recording is under way, which `what` can't be part of.
    pub(crate) fn expect_none(&self, what: &str) -> Result<(), Failure> {
        match self.open {
            Some(_) => Err(failed(&format!("{what} while launches are recorded"))),
            None => Ok(()),
        }
    }
}

fn failed(reason: &str) -> Failure {
    Failure::Call { call: "recording", code: reason.to_owned() }
}
