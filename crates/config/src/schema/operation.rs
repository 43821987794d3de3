//! What the gateway stands on: spool, plugins, log, admin socket.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use pintle_plugin::Grant;

use super::{key, optional, required};
use crate::definition::{SectionDefinition, SectionShape};
use crate::values::{JsonTable, LogFormat, LogLevel, OnFault, OrZero, Positive, Size};

pub(super) const SECTIONS: &[SectionDefinition] = &[
    SectionDefinition {
        name: "process",
        shape: SectionShape::One,
        about: "With whose rights the gateway runs. A change needs a restart.",
        keys: &[
            optional::<String>(
                "user",
                "Whom it becomes after a start as root, once it has bound its ports: a name in /etc/passwd, or a number. It \
                 must be able to read all files that are named here and to write to its folders. Left out, the gateway stays \
                 who it is, and says so when that is root.",
            ),
            optional::<String>(
                "group",
                "The group to go with it; left out: the user's. Its other groups it has anyhow.",
            ),
        ],
    },
    SectionDefinition {
        name: "spool",
        shape: SectionShape::One,
        about: "Where messages lie until they are delivered. A change needs a restart.",
        keys: &[
            key::<PathBuf>(
                "dir",
                "\"/var/lib/pintle/spool\"",
                "The folder; made when missing. On a local disk.",
            ),
            key::<Size>("segment_size", "\"64MiB\"", "The size of the body log's files."),
            key::<Size>("reserve", "\"256MiB\"", "Free space below which no new mail is taken."),
            key::<Size>("memory_per_message", "\"1MiB\"", "A larger body gets a file of its own."),
            key::<Size>("memory", "\"256MiB\"", "Memory for all messages being received."),
            key::<Size>("warm_memory", "\"32MiB\"", "Memory for messages just committed."),
        ],
    },
    SectionDefinition {
        name: "plugins",
        shape: SectionShape::One,
        about: "What holds for all plugins.",
        keys: &[
            optional::<PathBuf>(
                "folder",
                "Where relative `component` paths begin; left out: the configuration file's folder.",
            ),
            optional::<PathBuf>(
                "cache",
                "A folder, closed to others, that keeps compiled plugins; left out, each start compiles. A change needs a restart.",
            ),
            optional::<PathBuf>(
                "state",
                "A folder that keeps what plugins store (grant `kv`), saved once a minute and at the end; left out, a restart \
                 forgets it. A change needs a restart.",
            ),
            optional::<Size>(
                "address_space",
                "The most address space that guests' memories may reserve, which costs no memory; left out, half of what the \
                 process may have. With less of it guests run with bounds checks; with little, such as `1GiB`, nothing is \
                 reserved and each instance takes its own. A change needs a restart.",
            ),
            key::<bool>(
                "watch",
                "true",
                "A changed component file is loaded by itself. A change of this key needs a restart.",
            ),
            key::<OrZero>(
                "settle",
                "\"250ms\"",
                "How long a changed file must rest before it is read. A change needs a restart.",
            ),
            key::<Size>(
                "kv_size",
                "\"64MiB\"",
                "What one plugin may store (grant `kv`). A change needs a restart.",
            ),
        ],
    },
    SectionDefinition {
        name: "plugin",
        shape: SectionShape::Many,
        about: "A plugin. They are asked in the order of the file.",
        keys: &[
            required::<String>(
                "name",
                "Its name in logs, metrics and scores. Each plugin has its own; the same component may run under several.",
            ),
            required::<String>(
                "component",
                "A .wasm file, or `stock:NAME` for one that comes with the program.",
            ),
            optional::<JsonTable>(
                "config",
                "The plugin's own settings, whatever it wants: `[plugin.config]`.",
            ),
            optional::<PathBuf>("config_file", "A JSON or TOML file with them instead."),
            key::<Vec<Grant>>("grants", "[]", "What it may do; nothing unless it is named here."),
            key::<bool>("mandatory", "false", "It is asked even after another plugin has accepted."),
            key::<bool>(
                "required",
                "true",
                "The gateway does not start without it. Otherwise `on_fault` answers for it until it loads.",
            ),
            key::<OnFault>(
                "on_fault",
                "\"defer\"",
                "What a trap, a timeout or exhausted memory means for the mail: `defer`, `accept`, `reject` or `skip`; or by hook: `{ default = \"defer\", rcpt = \"skip\" }`. After the 250, in `deliver`, `reject` means `defer`.",
            ),
            key::<Duration>("timer", "\"1m\"", "How often `on-timer` is called."),
        ],
    },
    SectionDefinition {
        name: "plugin.limits",
        shape: SectionShape::One,
        about: "What the plugin before it may use.",
        keys: &[
            key::<Duration>("wall", "\"10s\"", "For one call, waiting included."),
            key::<Duration>("cpu", "\"1s\"", "Computing in one call."),
            key::<Duration>("start", "\"30s\"", "For making an instance."),
            key::<Size>("memory", "\"64MiB\"", "Of one instance."),
            optional::<Positive<usize>>(
                "max_instances",
                "Calls at once; one network of clients has a quarter of them at most, or half if it is trusted, and strangers leave an eighth to clients that are. Left out: one for each hundred sessions that the listeners may hold, from 16 to 128.",
            ),
            key::<usize>("min_idle", "1", "Instances kept ready."),
            key::<Duration>("wait", "\"2s\"", "For a free instance."),
            key::<u64>("recycle_after", "100000", "Calls after which an instance is replaced; 0 keeps it."),
        ],
    },
    SectionDefinition {
        name: "log",
        shape: SectionShape::One,
        about: "What is written about the work.",
        keys: &[
            key::<LogFormat>("format", "\"text\"", "Lines for people, or JSON."),
            key::<LogLevel>("level", "\"info\"", "The least that is written."),
            optional::<PathBuf>("file", "Written to instead of standard error. A change needs a restart."),
        ],
    },
    SectionDefinition {
        name: "admin",
        shape: SectionShape::One,
        about: "Where `pintle queue` and its like reach the gateway. A change needs a restart.",
        keys: &[
            key::<PathBuf>(
                "socket",
                "\"/run/pintle/admin.sock\"",
                "A unix socket that only the gateway's user can open.",
            ),
            optional::<SocketAddr>("http", "An address for /health, /ready and /metrics over HTTP."),
        ],
    },
];
