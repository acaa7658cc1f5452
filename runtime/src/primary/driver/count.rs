//! Counts the connections that leaving workers still have open, on a thread of its own: with many
//! processes and sockets a count takes long.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use roundel_core::{Input, WorkerId};

use super::{PrimaryDriver, helpers, report};
use crate::unix::sock_diag::{self, Names};

/// A question to the thread: the addresses at which clients connect, and the process groups to
/// check.
type Question = (Names, Vec<(WorkerId, i32)>);

/// The thread's answer, or why it could not count.
type Answer = io::Result<Vec<(WorkerId, Option<u32>)>>;

/// The thread, and the data for its questions.
#[derive(Debug)]
pub(super) struct Counter {
    pub(super) names: Names,
    /// Says that an answer has come.
    helpers: Arc<OwnedFd>,
    questions: Option<Sender<Question>>,
    answers: Option<Receiver<Answer>>,
    /// A question has not been answered yet.
    busy: bool,
    /// A failure to count was reported already.
    said: bool,
}

impl Counter {
    pub(super) fn new(helpers: Arc<OwnedFd>) -> Counter {
        Counter {
            names: Names::default(),
            helpers,
            questions: None,
            answers: None,
            busy: false,
            said: false,
        }
    }

    fn ask(&mut self, groups: Vec<(WorkerId, i32)>) -> io::Result<()> {
        if self.questions.is_none() {
            let (questions, asked) = mpsc::channel::<Question>();
            let (answer, answers) = mpsc::channel();
            let helpers = self.helpers.clone();
            let run = move || {
                for (names, groups) in asked {
                    let leaders: Vec<i32> = groups.iter().map(|(_, pid)| *pid).collect();
                    let counts = sock_diag::count(&names, &leaders);
                    let workers = groups.into_iter().map(|(id, _)| id);
                    if answer.send(counts.map(|counts| workers.zip(counts).collect())).is_err() {
                        return;
                    }
                    helpers::notify(&helpers);
                }
            };
            std::thread::Builder::new().name("connections".into()).spawn(run)?;
            (self.questions, self.answers) = (Some(questions), Some(answers));
        }
        let names = self.names.clone();
        self.busy = self.questions.as_ref().is_some_and(|it| it.send((names, groups)).is_ok());
        Ok(())
    }

    fn answer(&mut self) -> Option<Answer> {
        let answer = self.answers.as_ref()?.try_recv().ok()?;
        self.busy = false;
        Some(answer)
    }
}

impl PrimaryDriver {
    pub(super) fn count_connections(&mut self, workers: &[WorkerId]) {
        let pid = |id: &WorkerId| self.pids.get(id).map(|pid| (*id, *pid));
        let groups = workers.iter().filter_map(pid).collect();
        if !self.counter.busy
            && let Err(error) = self.counter.ask(groups)
        {
            self.count_failed(&error.to_string());
        }
    }

    pub(super) fn on_counted(&mut self) {
        while let Some(answer) = self.counter.answer() {
            match answer {
                Ok(counts) => {
                    if counts.iter().any(|(_, open)| open.is_none()) {
                        self.count_failed(
                            "the descriptors of another user's processes can't be read",
                        );
                    }
                    for (worker, open) in counts {
                        self.input(Input::Connections { worker, open });
                    }
                }
                Err(error) => self.count_failed(&error.to_string()),
            }
        }
    }

    fn count_failed(&mut self, cause: &str) {
        if std::mem::replace(&mut self.counter.said, true) {
            return;
        }
        self.log(|at| report::Line::new(at, "connections_unknown").with("cause", cause));
        self.say(&format!(
            "cannot see which connections leaving workers have open ({cause}); roundel assumes \
             that they have some, and signals them only when their deadline is near"
        ));
    }
}
