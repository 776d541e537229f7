//! Mistakes that are planted to see whether they are found. Each breaks a promise that a node makes; where it is planted
//! is where it would be made.

/// A mistake. Each breaks a promise, and some check must see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// The log reports a record that has landed and is not synced.
    AcknowledgesBeforeSync,
    /// Durable is taken for effective: every report is passed on as contiguous.
    AcknowledgesBeforeContiguity,
    /// Leads as soon as its claim is durable, on the state from before it.
    ServesBeforeItsClaim,
    /// An owner that may have been succeeded says what it knows without asking the log: a paused one tells of the past.
    ZombieAnswers,
    /// The state store forgets ids: dedup sees only the shard's own term.
    ForgetsIds,
    /// Decides first, and looks whether the id was used when it answers.
    DedupsAfterDeciding,
    /// Says that records are saved before the state store has them.
    SaysSavedTooEarly,
    /// What was on its way to the state store in an earlier term is still written after the next has begun.
    SavesAcrossTerms,
    /// Timers of a partition that is taken over are not looked for.
    LosesTimersAtRestart,
    /// A timer is fired under a new id each time.
    FiresTwice,
    /// What streams owe is not looked for when their partition is taken over.
    LosesErrandsAtRestart,
    /// A call to the gateway is made when its record is handed to the log, and not once it is effective.
    CallsWithoutRecordedIntent,
    /// A call to the gateway goes under a new key with each try.
    KeyPerTry,
    /// What the gateway did not answer in time it is taken to have declined.
    TakesSilenceForNo,
    /// Payments of a standing order all go under one id.
    PaysUnderOneId,
    /// A transfer that is given up leaves what was set aside.
    ForgetsUndo,
    /// A transfer that timed out takes what was not answered for not done.
    SkipsUndoOnTimeout,
    /// The gateway does not bar what it is told to void before it hears of it.
    GatewayForgetsBars,
    /// The checkpoint is committed first, the rows in a transaction after it.
    CheckpointBeforeRows,
    /// The feeder commits without looking whether somebody else moved the checkpoint.
    CommitsUnguarded,
    /// A second try at what is parked, which moves no checkpoint, fences nobody: what an earlier feeder still had under way
    /// is committed over it.
    RetriesUnfenced,
    /// The feeder folds every record, whether it counts or not.
    FoldsIneffective,
    /// An event that cannot be folded is left out, and nobody is told.
    DropsWhatItCannotFold,
    /// Only the event that cannot be folded is set aside, and what follows it in its stream is folded.
    ParksOnlyTheEvent,
    /// A row that was loaded is cached, also if the tail has passed it meanwhile.
    FillsCacheWithStaleRows,
    /// The tail leaves out what was written in another node's term.
    CacheMissesForeignEvents,
    /// A read does not wait until the node is as far as the reader was told.
    ReadsWithoutWaiting,
    /// A shard is not told that it is crowded.
    BeginsWhileCrowded,
    /// A shard that is crowded turns away steps of what was begun.
    HoldsBackWhatWasBegun,
    /// Decides first, and turns away when it answers.
    TurnsAwayTooLate,
}

impl Mistake {
    /// All of them.
    pub const ALL: [Self; 30] = [
        Self::AcknowledgesBeforeSync,
        Self::AcknowledgesBeforeContiguity,
        Self::ServesBeforeItsClaim,
        Self::ZombieAnswers,
        Self::ForgetsIds,
        Self::DedupsAfterDeciding,
        Self::SaysSavedTooEarly,
        Self::SavesAcrossTerms,
        Self::LosesTimersAtRestart,
        Self::FiresTwice,
        Self::LosesErrandsAtRestart,
        Self::CallsWithoutRecordedIntent,
        Self::KeyPerTry,
        Self::TakesSilenceForNo,
        Self::PaysUnderOneId,
        Self::ForgetsUndo,
        Self::SkipsUndoOnTimeout,
        Self::GatewayForgetsBars,
        Self::CheckpointBeforeRows,
        Self::CommitsUnguarded,
        Self::RetriesUnfenced,
        Self::FoldsIneffective,
        Self::DropsWhatItCannotFold,
        Self::ParksOnlyTheEvent,
        Self::FillsCacheWithStaleRows,
        Self::CacheMissesForeignEvents,
        Self::ReadsWithoutWaiting,
        Self::BeginsWhileCrowded,
        Self::HoldsBackWhatWasBegun,
        Self::TurnsAwayTooLate,
    ];
}
