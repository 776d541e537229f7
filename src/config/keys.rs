//! Every key that a node knows. What they are without being set is in the types beside; a test holds the two together.

use chassis::config::{Key, Kind};

const fn key(path: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { path, kind, doc }
}

/// All keys, as they are told.
pub(crate) const KEYS: &[Key] = &[
    key("node.name", Kind::Text, "What this node is called in claims and logs. The machine's name if not set."),
    key(
        "node.advertise",
        Kind::Text,
        "Host and port where other nodes reach this one's gRPC. What listen.grpc says if not set.",
    ),
    key(
        "roles",
        Kind::ManyOf(&["command", "projection", "query"]),
        "What this node does: lead partitions, keep read models current, answer reads.",
    ),
    key("listen.http", Kind::Address, "Where HTTP is served. There is no TLS and no login yet: put a proxy before it."),
    key("listen.grpc", Kind::Address, "Where other nodes hand commands over. Used where several nodes share a log."),
    key(
        "data",
        Kind::Text,
        "Directory for what is this node's own: the embedded log, local copies, states. Never shared between nodes.",
    ),
    key(
        "gateway",
        Kind::OneOf(&["simulator"]),
        "The payment gateway. The simulator keeps its books in data, or in the PostgreSQL that nodes share.",
    ),
    key("dev_routes", Kind::Flag, "Whether /dev/* is served, where everybody may see and do everything. For tests."),
    key(
        "log.kind",
        Kind::OneOf(&["embedded", "kafka"]),
        "Where the log is: in data, for one node, or on Apache Kafka.",
    ),
    key("log.name", Kind::Text, "The log's name: its topic is docket.log.NAME. a-z, 0-9, - and _."),
    key("log.partitions", Kind::Whole(1, 1_024), "Partitions of a log that is made; fixed for ever after."),
    key(
        "log.cache_mib",
        Kind::Whole(1, 65_536),
        "Memory for what is read of the log, in MiB: half blocks, a quarter indexes, an eighth headers, an eighth its end.",
    ),
    key("log.kafka.bootstrap", Kind::Text, "Brokers to begin with: host:port, commas between them."),
    key(
        "log.kafka.replication_factor",
        Kind::Whole(1, 16),
        "Copies of a topic that is made. 3 or more survive a broker; 1 is for tests.",
    ),
    key(
        "log.kafka.min_insync_replicas",
        Kind::Whole(1, 16),
        "Copies that must have a record before it is acknowledged, of a topic that is made. 2 at most if not set.",
    ),
    key("log.kafka.start_timeout_ms", Kind::Whole(1_000, 600_000), "How long a start may wait for the brokers."),
    key(
        "log.kafka.request_timeout_ms",
        Kind::Whole(100, 300_000),
        "How long a request may take before it is sent again.",
    ),
    key(
        "log.kafka.delivery_timeout_ms",
        Kind::Whole(1_000, 300_000),
        "How long a record may take before its fate is unknown. Longer than a change of leaders takes.",
    ),
    key(
        "log.kafka.session_timeout_ms",
        Kind::Whole(1_000, 1_800_000),
        "How long a node may be silent before its partitions go to others; no less than the brokers allow, 6,000 by default.",
    ),
    key("log.kafka.tls", Kind::Flag, "Whether connections to the brokers are encrypted. Needs the feature kafka-tls."),
    key("log.kafka.tls_ca_file", Kind::Text, "PEM file of the authorities to trust. The system's if not set."),
    key(
        "log.kafka.tls_certificate_file",
        Kind::Text,
        "PEM file with this node's certificate, if the brokers ask for one.",
    ),
    key("log.kafka.tls_key_file", Kind::Text, "PEM file with that certificate's private key."),
    key(
        "log.kafka.sasl_mechanism",
        Kind::OneOf(&["plain", "scram-sha-256", "scram-sha-512"]),
        "How this node proves who it is to the brokers. Not at all if not set. Needs the feature kafka-tls.",
    ),
    key("log.kafka.sasl_user", Kind::Text, "The user it is to the brokers."),
    key("log.kafka.sasl_password", Kind::Secret, "That user's password. Better in a file: see sasl_password_file."),
    key("log.kafka.sasl_password_file", Kind::Text, "A file with that password."),
    key(
        "ownership.kind",
        Kind::OneOf(&["group", "static"]),
        "Who should lead which partition, on Kafka: a consumer group shares them out, or each node is told. A hint only.",
    ),
    key("ownership.partitions", Kind::Text, "With static ownership: what this node leads, such as 0-3,7."),
    key(
        "read_store.url",
        Kind::Url,
        "Where read models are: postgres://… that nodes share, or sqlite:FILE of this node. views.db in data if not set.",
    ),
    key("read_store.readers", Kind::Whole(1, 1_000), "Connections that read at once."),
    key("read_store.writers", Kind::Whole(1, 64), "PostgreSQL: transactions that feed read models at once."),
    key("read_store.read_timeout_ms", Kind::Whole(100, 60_000), "PostgreSQL: longest statement of a read."),
    key(
        "read_store.write_timeout_ms",
        Kind::Whole(1_000, 300_000),
        "PostgreSQL: longest statement that feeds read models.",
    ),
    key(
        "read_store.lease_ms",
        Kind::Whole(1_000, 60_000),
        "PostgreSQL: how long what a dead node fed waits until another one feeds it.",
    ),
    key(
        "read_store.page_cache_mib",
        Kind::Whole(1, 4_096),
        "SQLite: memory for pages of the connection that writes, in MiB; each that reads has half as much.",
    ),
    key(
        "read_store.cache_mib",
        Kind::Whole(0, 65_536),
        "Memory for rows that were read, so that they are not loaded again, in MiB. 0 keeps none.",
    ),
    key(
        "read_store.cache_age_ms",
        Kind::Whole(100, 86_400_000),
        "How long such a row is served before it is loaded again, a fifth more or less. It is kept true meanwhile.",
    ),
    key("state_store.cache_mib", Kind::Whole(1, 65_536), "Memory for what is read of the state store's files, in MiB."),
    key(
        "state_store.write_buffer_mib",
        Kind::Whole(1, 16),
        "Memory for what is written to a table before it is sorted into a file, in MiB, of a state store that is made.",
    ),
    key(
        "timeouts.answer_ms",
        Kind::Whole(1_000, 30_000),
        "Longest wait of a command for its outcome; then it is unknown.",
    ),
    key(
        "timeouts.gateway_ms",
        Kind::Whole(100, 120_000),
        "Longest wait for the payment gateway; then it is asked again.",
    ),
    key("timeouts.drain_requests_ms", Kind::Whole(0, 9_000), "How long requests under way may take once it stops."),
    key(
        "timeouts.drain_ms",
        Kind::Whole(100, 9_000),
        "How long shards may take to settle and be given back after that.",
    ),
    key(
        "timeouts.head_ms",
        Kind::Whole(100, 60_000),
        "Longest time from a request's first byte to the end of its head.",
    ),
    key("timeouts.idle_ms", Kind::Whole(1_000, 3_600_000), "Longest time a connection may be open without a request."),
    key(
        "timeouts.turn_ms",
        Kind::Whole(10, 30_000),
        "Longest wait of a request for its turn while the node is busy; then it is told to retry.",
    ),
    key(
        "timeouts.queue_ms",
        Kind::Whole(10, 30_000),
        "Longest wait of a command before its partition; then it is told to retry.",
    ),
    key(
        "timeouts.steps_late_ms",
        Kind::Whole(10, 60_000),
        "How late saga steps may be before checkouts and payments that would add more are told to retry.",
    ),
    key("limits.connections", Kind::Whole(1, 65_536), "Most HTTP connections in all."),
    key("limits.connections_per_address", Kind::Whole(1, 65_536), "Most of one address; loopback is exempt."),
    key("limits.commands_at_once", Kind::Whole(16, 65_536), "Commands worked on at once; more wait for their turn."),
    key("limits.reads_at_once", Kind::Whole(16, 65_536), "Reads worked on at once; more wait for their turn."),
    key(
        "limits.commands_waiting",
        Kind::Whole(16, 65_536),
        "Commands waiting before one partition; more are told to retry.",
    ),
    key("limits.errands", Kind::Whole(1, 65_536), "Saga steps and gateway calls under way at once."),
    key(
        "limits.sagas_open",
        Kind::Whole(1, 1_000_000),
        "Sagas and payments of one partition that owe something; what would begin more is told to retry.",
    ),
    key("limits.history_reads", Kind::Whole(1, 1_024), "Reads of history at once; more wait for their turn."),
    key(
        "limits.forwards",
        Kind::Whole(16, 1_024),
        "Commands under way to one other node at once; more are told to retry. Four times as many in all.",
    ),
    key("limits.body_kib", Kind::Whole(16, 1_024), "Longest body of a request, in KiB."),
    key(
        "limits.batch_events",
        Kind::Whole(1, 20_000),
        "Events folded into read models in one transaction; on PostgreSQL twice as many.",
    ),
    key("limits.state_cache_mib", Kind::Whole(1, 65_536), "Memory for folded states, all partitions together, in MiB."),
    key("telemetry.format", Kind::OneOf(&["auto", "json", "text"]), "How log lines look: auto is text on a terminal."),
    key("telemetry.filter", Kind::Text, "What is logged, as RUST_LOG has it; RUST_LOG itself wins."),
];
