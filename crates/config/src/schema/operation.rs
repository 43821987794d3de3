//! The sections about the process: spool, plugins, log, admin socket.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use pintle_plugin::Grant;

use super::{key, optional, required};
use crate::definition::{SectionDefinition, SectionShape};
use crate::values::{
    JsonTable, LogFormat, LogLevel, OnFault, OrZero, PluginName, Positive, SecretText, Size,
};

pub(super) const SECTIONS: &[SectionDefinition] = &[
    SectionDefinition {
        name: "process",
        shape: SectionShape::One,
        about: "The user that the gateway runs as. A change needs a restart.",
        keys: &[
            optional::<String>(
                "user",
                "The user to switch to after a start as root, once the ports are bound: a name in /etc/passwd, or a \
                 number. It must be able to read all files that are named here and to write to the gateway's \
                 folders. Default: the user does not change, and a warning is logged when that is root.",
            ),
            optional::<String>(
                "group",
                "The group to switch to. Default: the user's group. The user's other groups are always set.",
            ),
        ],
    },
    SectionDefinition {
        name: "spool",
        shape: SectionShape::One,
        about: "Where messages are stored until they are delivered. A change needs a restart.",
        keys: &[
            key::<PathBuf>(
                "dir",
                "\"/var/lib/pintle/spool\"",
                "The folder, on a local disk. It is created if it does not exist.",
            ),
            key::<Size>("segment_size", "\"64MiB\"", "The size of one file of the log."),
            key::<Size>("reserve", "\"256MiB\"", "The free disk space below which no new mail is accepted."),
            key::<Size>(
                "memory_per_message",
                "\"1MiB\"",
                "The size above which a body is written to a file of its own.",
            ),
            key::<Size>("memory", "\"256MiB\"", "Memory for all messages that are being received."),
            key::<Size>(
                "warm_memory",
                "\"32MiB\"",
                "Memory for messages that were committed recently, so that their first delivery need not read the \
                 disk.",
            ),
        ],
    },
    SectionDefinition {
        name: "plugins",
        shape: SectionShape::One,
        about: "Settings for all plugins.",
        keys: &[
            optional::<PathBuf>(
                "folder",
                "The folder that relative `component` paths start from. Default: the configuration file's folder.",
            ),
            optional::<PathBuf>(
                "cache",
                "A folder for compiled plugins; other users must have no access to it. Default: plugins are \
                 compiled at each start. A change needs a restart.",
            ),
            optional::<PathBuf>(
                "state",
                "A folder for what plugins store (grant `kv`), saved once a minute and at shutdown. Default: a \
                 restart loses it. A change needs a restart.",
            ),
            optional::<Size>(
                "address_space",
                "The most address space that the memories of plugins may reserve; reserving it uses no memory. \
                 Default: half of what the process may have. With less, plugins run with bounds checks; with \
                 little, such as `1GiB`, nothing is reserved and each instance allocates its own. A change needs a \
                 restart.",
            ),
            key::<bool>(
                "watch",
                "true",
                "Load a component file again when it changes. A change of this key needs a restart.",
            ),
            key::<OrZero>(
                "settle",
                "\"250ms\"",
                "How long a changed file must stay unchanged before it is read. A change needs a restart.",
            ),
            key::<Size>(
                "kv_size",
                "\"64MiB\"",
                "How much one plugin may store (grant `kv`). A change needs a restart.",
            ),
        ],
    },
    SectionDefinition {
        name: "plugin",
        shape: SectionShape::Many,
        about: "A plugin. Plugins are called in the order of the file.",
        keys: &[
            required::<PluginName>(
                "name",
                "The name in logs, metrics, facts and scores. Every plugin needs its own; the same component may run \
                 under several names.",
            ),
            required::<String>(
                "component",
                "A .wasm file, or `stock:NAME` for a plugin that comes with the program.",
            ),
            optional::<JsonTable>("config", "The plugin's own settings: `[plugin.config]`."),
            optional::<PathBuf>(
                "config_file",
                "A JSON or TOML file with the plugin's settings, instead of `config`.",
            ),
            key::<Vec<Grant>>(
                "grants",
                "[]",
                "The permissions of the plugin. It may do nothing that is not named here.",
            ),
            key::<bool>("mandatory", "false", "Its objections count even after another plugin has accepted."),
            key::<bool>(
                "required",
                "true",
                "Do not start without it. If false, `on_fault` answers in its place until it loads.",
            ),
            key::<OnFault>(
                "on_fault",
                "\"defer\"",
                "What a trap, a timeout or exhausted memory means for the mail: `defer`, `accept`, `reject` or \
                 `skip`; or a table by hook: `{ default = \"defer\", rcpt = \"skip\" }`. After the 250, in \
                 `deliver`, `reject` means `defer`.",
            ),
            key::<Duration>("timer", "\"1m\"", "How often `on-timer` is called."),
        ],
    },
    SectionDefinition {
        name: "plugin.limits",
        shape: SectionShape::One,
        about: "What the plugin above it may use.",
        keys: &[
            key::<Duration>("wall", "\"10s\"", "Wall time of one call, including waiting."),
            key::<Duration>("cpu", "\"1s\"", "CPU time of one call."),
            key::<Duration>("start", "\"30s\"", "Time to start an instance."),
            key::<Size>("memory", "\"64MiB\"", "Memory of one instance."),
            optional::<Positive<usize>>(
                "max_instances",
                "Maximum number of calls at once. One network of clients gets a quarter of them at most, or half if \
                 it is trusted, and strangers leave an eighth to other clients. Default: one for each hundred \
                 sessions that the listeners may hold, from 16 to 128.",
            ),
            key::<usize>("min_idle", "1", "Number of instances that are kept ready."),
            key::<Duration>("wait", "\"2s\"", "How long a call waits for a free instance."),
            key::<u64>(
                "recycle_after",
                "100000",
                "Number of calls after which an instance is replaced; 0 never replaces it.",
            ),
        ],
    },
    SectionDefinition {
        name: "secrets",
        shape: SectionShape::Named,
        about: "A key that plugins with the grant `secrets` use by NAME, such as `batv` for the tags of return \
                addresses. Plugins never see the key itself. A reload replaces it.",
        keys: &[required::<SecretText>(
            "key",
            "The key: a text of at least 16 characters. `openssl rand -hex 20` writes one.",
        )],
    },
    SectionDefinition {
        name: "log",
        shape: SectionShape::One,
        about: "The log.",
        keys: &[
            key::<LogFormat>("format", "\"text\"", "Lines of text, or JSON."),
            key::<LogLevel>("level", "\"info\"", "The lowest level that is logged."),
            optional::<PathBuf>(
                "file",
                "The file to log to, instead of standard error. A change needs a restart.",
            ),
        ],
    },
    SectionDefinition {
        name: "admin",
        shape: SectionShape::One,
        about: "Where `pintle queue` and similar commands reach the gateway. A change needs a restart.",
        keys: &[
            key::<PathBuf>(
                "socket",
                "\"/run/pintle/admin.sock\"",
                "A unix socket that only the gateway's user can open.",
            ),
            optional::<SocketAddr>(
                "http",
                "The address and port for /health, /ready and /metrics over HTTP.",
            ),
        ],
    },
];
