//! The codes that any service of this shape needs, whatever its business. Those of the business are made the same way in
//! its own rooms and join these in [`Pages`](super::Pages). A code cannot exist without its page. The last ones are never
//! answered: they are what operators find as `fault.code` in the log.

use super::Code;

macro_rules! codes {
    ($($name:ident = $status:literal, $code:literal, $title:literal;)*) => {
        $(
            #[doc = concat!("`", $code, "`, ", stringify!($status), ": ", $title, ".")]
            pub const $name: Code = Code::new(
                $code,
                $status,
                $title,
                include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/pages/", $code, ".md")),
            );
        )*
        /// All of them.
        pub const ALL: &[Code] = &[$($name),*];
    };
}

codes! {
    MALFORMED_BODY = 400, "malformed-body", "The body cannot be read as JSON";
    UNSUPPORTED_MEDIA_TYPE = 415, "unsupported-media-type", "The body is of a type that is not taken";
    BODY_TOO_LARGE = 413, "body-too-large", "The body is too large";
    BODY_TOO_SLOW = 408, "body-too-slow", "The body did not arrive in time";
    INVALID_FIELDS = 422, "invalid-fields", "Some fields are not valid";
    NO_SUCH_ROUTE = 404, "no-such-route", "There is nothing at this address";
    METHOD_NOT_ALLOWED = 405, "method-not-allowed", "This address does not take that method";
    NOT_ACCEPTABLE = 406, "not-acceptable", "None of the acceptable types can be given";
    IDEMPOTENCY_KEY_MISSING = 400, "idempotency-key-missing", "The command has no Idempotency-Key";
    IDEMPOTENCY_KEY_MALFORMED = 400, "idempotency-key-malformed", "The Idempotency-Key is not a UUID";
    IDEMPOTENCY_KEY_REUSED = 422, "idempotency-key-reused", "The Idempotency-Key was used for another command";
    MALFORMED_HEAD = 400, "malformed-head", "The request cannot be read as HTTP";
    HEAD_TOO_LARGE = 431, "head-too-large", "The request's head is too large";
    BAD_HEADER = 400, "bad-header", "A header cannot be understood";
    BAD_POSITION = 400, "bad-position", "The position cannot be understood";
    BAD_CURSOR = 400, "bad-cursor", "The cursor is not one of ours";
    VERSION_MISMATCH = 412, "version-mismatch", "The resource is at another version";
    PRECONDITION_REQUIRED = 428, "precondition-required", "The command must say which version it means";
    COMMAND_EXPIRED = 409, "command-expired", "The command is older than what is remembered";
    OVERLOADED = 503, "overloaded", "Too busy to take this now";
    RATE_LIMITED = 429, "rate-limited", "Too many requests";
    UNCONFIRMED = 503, "unconfirmed", "The outcome is not known yet";
    NOT_SERVING = 503, "not-serving", "This partition is not served here now";
    NOT_OPEN_YET = 503, "not-open-yet", "The node is not open yet";
    NOT_SERVED_HERE = 421, "not-served-here", "This node does not serve that";
    READ_MODEL_BEHIND = 503, "read-model-behind", "The read model has not come that far yet";
    READ_MODEL_PARKED = 503, "read-model-parked", "The read model of this resource is set aside";
    PROJECTION_NOT_FOUND = 404, "projection-not-found", "There is no such projection";
    PROJECTION_BUSY = 409, "projection-busy", "The projection is at that already";
    NOTHING_BESIDE = 409, "nothing-beside", "There are no such rows beside those in use";
    REBUILD_NOT_READY = 409, "rebuild-not-ready", "The rows beside are not as far as those in use yet";
    STREAM_NOT_PARKED = 404, "stream-not-parked", "The stream is not set aside";
    CHECK_NOT_FOUND = 404, "check-not-found", "Nothing has been checked yet";
    LOG_FULL = 503, "log-full", "The log is full";
    LOG_STOPPED = 503, "log-stopped", "The log has stopped";
    LOG_DAMAGED = 503, "log-damaged", "The log is damaged";
    INTERNAL = 500, "internal", "Something broke here";
    COMMAND_MISPLACED = 500, "command-misplaced", "A command is not where its streams are";
    COMMAND_UNSENDABLE = 500, "command-unsendable", "A command cannot be sent to its owner";
    ERRAND_PANICKED = 500, "errand-panicked", "An errand broke";
    ERRAND_WITHOUT_STREAM = 500, "errand-without-stream", "An errand addresses nobody";
    EVENT_PARKED = 500, "event-parked", "A stream is set aside";
    FORWARD_REFUSED = 500, "forward-refused", "A node would not decide a command";
    FORWARDING_STOPPED = 500, "forwarding-stopped", "Commands from other nodes are no longer taken";
    OUTSIDE_PANICKED = 500, "outside-panicked", "A call to the outside broke";
    PROJECTION_STOPPED = 500, "projection-stopped", "The read models are not kept current any more";
    REPLY_UNREADABLE = 500, "reply-unreadable", "A node answered something that cannot be read";
    STATE_STORE_FAILED = 500, "state-store-failed", "The state store failed";
    STATE_STORE_FULL = 500, "state-store-full", "The disk has no room for states";
    STATE_STORE_UNREADABLE = 500, "state-store-unreadable", "The state store cannot be read";
    CONFIG_REFUSED = 500, "config-refused", "The configuration cannot be used";
    KAFKA_REFUSED = 500, "kafka-refused", "The brokers refuse what is asked";
    KAFKA_UNREACHABLE = 500, "kafka-unreachable", "The brokers do not answer";
    KAFKA_UNSAFE = 500, "kafka-unsafe", "The topic is set so that records could be lost";
    LOG_COPY_FAILED = 500, "log-copy-failed", "The local copy of the log cannot be kept";
    TOPIC_ABSENT = 500, "topic-absent", "There is no log in the topic";
    TOPIC_FOREIGN = 500, "topic-foreign", "The topic holds something else";
    TOPIC_TRUNCATED = 500, "topic-truncated", "The topic has lost records";
}
