//! The content of the command line, as plain data.

use std::ffi::OsString;
use std::path::PathBuf;

use roundel_core::{Address, Codec, ConfigBuilder};

use roundel_runtime::observe::control::Where;
use roundel_runtime::observe::eventlog::Target;
use roundel_runtime::observe::journal;
use roundel_runtime::observe::output::Format;
use roundel_runtime::primary::bind::Bind;
use roundel_runtime::unix::user::Identity;

/// The options of `run` and `demo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// The part of the primary's configuration that they choose, apart from its listeners.
    pub(crate) config: ConfigBuilder,
    /// The operator's listeners, in the order given.
    pub(crate) bind: Vec<Bind>,
    /// A listener that is given to every worker when it starts.
    pub(crate) pass_server: Option<Address>,
    /// The user that the primary becomes once they are bound; `None` if it stays as it is.
    pub(crate) identity: Option<Identity>,
    /// Where the control socket is.
    pub(crate) control: Where,
    /// Where the event log goes; `None` if there is none.
    pub(crate) events: Option<Target>,
    /// Where the journal goes; `None` if there is none.
    pub(crate) journal: Option<journal::Target>,
    /// Where metrics are served; `None` if they are not.
    pub(crate) metrics: Option<Address>,
    /// The form of what workers print.
    pub(crate) log_format: Format,
    /// The file for what workers print; `None` for the primary's own outputs.
    pub(crate) log_file: Option<PathBuf>,
    /// The codec that workers must speak; `None` lets each worker choose.
    pub(crate) codec: Option<Codec>,
    /// The variable that gives a program the number of its slot; `None` if there is none.
    pub(crate) instance_var: Option<String>,
    /// Whether Node workers load a module that helps them to leave.
    pub(crate) node_assist: bool,
    /// Variables for workers, which only a configuration file can give.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// The directory for workers, likewise; `None` is that of the primary.
    pub(crate) cwd: Option<PathBuf>,
}

impl Options {
    /// The first option in which other ones differ although it can't change while a primary runs.
    pub(crate) fn fixed(&self, other: &Options) -> Option<&'static str> {
        let (old, new) = (&self.config, &other.config);
        let policy = |config: &ConfigBuilder| config.clone().build().map(|it| it.policy()).ok();
        let differs = [
            ("--policy", policy(old) != policy(new)),
            ("--pass-server", self.pass_server != other.pass_server),
            ("--user or --group", self.identity != other.identity),
            ("--control", self.control != other.control),
            ("--events", self.events != other.events),
            ("--journal", self.journal != other.journal),
            ("--log-format", self.log_format != other.log_format),
            ("--log-file", self.log_file != other.log_file),
            ("--metrics", self.metrics != other.metrics),
            ("--codec", self.codec != other.codec),
        ];
        differs.into_iter().find_map(|(name, differs)| differs.then_some(name))
    }

    /// The listeners that they ask for.
    pub(crate) fn binds(&self) -> Vec<Bind> {
        let pass_server = self.pass_server.clone().map(Bind::from);
        self.bind.iter().cloned().chain(pass_server).collect()
    }
}
