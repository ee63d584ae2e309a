// Field numbers of the parts of the Perfetto trace format that giltop writes and reads
// (protos/perfetto/trace/*.proto; the numbers are stable), and giltop's own names within it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace giltop::trace {

inline constexpr uint32_t kTracePacket = 1;

namespace packet {
inline constexpr uint32_t kClockSnapshot = 6, kTimestamp = 8, kSequenceId = 10, kTrackEvent = 11,
                          kInternedData = 12, kSequenceFlags = 13, kPreviousPacketDropped = 42,
                          kSystemInfo = 45, kCompressedPackets = 50, kDefaults = 59,
                          kTrackDescriptor = 60, kFirstOnSequence = 87, kTaskState = 117,
                          kTraceAttributes = 126;
}
namespace clock_snapshot {
inline constexpr uint32_t kClocks = 1, kPrimary = 2;
inline constexpr uint32_t kId = 1, kTimestamp = 2, kIsIncremental = 3;
}  // namespace clock_snapshot
// Clocks: 1, 3 and 6 are Perfetto's; 64 is this sequence's own, whose timestamps are differences.
inline constexpr uint32_t kClockRealtime = 1, kClockMonotonic = 3, kClockBoottime = 6,
                          kClockDelta = 64;

namespace track {
inline constexpr uint32_t kUuid = 1, kName = 2, kProcess = 3, kThread = 4, kParent = 5,
                          kCounter = 8, kChildOrdering = 11, kRank = 12, kDescription = 14,
                          kMerge = 15;
inline constexpr uint32_t kMergeNone = 2;
inline constexpr uint32_t kByRank = 3;                             // of kChildOrdering
inline constexpr uint32_t kPid = 1, kTid = 2, kThreadName = 5;     // of kThread
inline constexpr uint32_t kCmdline = 2, kProcessName = 6;          // of kProcess
inline constexpr uint32_t kUnit = 3, kUnitNs = 1, kUnitCount = 2;  // of kCounter
}  // namespace track
namespace event {
inline constexpr uint32_t kAnnotation = 4, kType = 9, kNameId = 10, kTrack = 11, kName = 23,
                          kCounterValue = 30, kFlow = 47, kTerminatingFlow = 48;
inline constexpr uint32_t kBegin = 1, kEnd = 2, kInstant = 3, kCounter = 4;
}  // namespace event
namespace annotation {
inline constexpr uint32_t kNameId = 1, kBool = 2, kUint = 3, kString = 6, kName = 10;
}
namespace interned {
inline constexpr uint32_t kEventNames = 2, kArgumentNames = 3, kId = 1, kName = 2;
}
namespace defaults {
inline constexpr uint32_t kClock = 58;
}
namespace task {
inline constexpr uint32_t kCpu = 1, kTid = 3, kState = 4;
// Of a switch-out, and giltop's own: the importer skips what it does not know. What was read as the
// thread left its CPU (kSightBits); how long it had been there: ns, or by how many more ns than lie
// between its switches (zigzag).
inline constexpr uint32_t kSight = 900, kRan = 901, kLead = 902;
inline constexpr uint32_t kRunnable = 2, kRunning = 3, kInterruptible = 4, kUninterruptible = 5,
                          kStopped = 6, kDead = 7, kDestroyed = 8;
}  // namespace task
namespace system_info {
inline constexpr uint32_t kUtsname = 1, kCpus = 8;
inline constexpr uint32_t kSysname = 1, kVersion = 2, kRelease = 3, kMachine = 4;
}  // namespace system_info
namespace attribute {
inline constexpr uint32_t kAttribute = 1, kKey = 1, kLong = 2, kString = 3;
}

inline constexpr uint32_t kSequence = 1;  // there is one writer
inline constexpr uint32_t kStateCleared = 1, kNeedsState = 2;

// Event names with a fixed interned id.
inline constexpr uint64_t kNameWait = 1, kNameHeld = 2, kNameReleased = 3, kNameForced = 4,
                          kNameWaitsOn = 5;
// These two were going on when they were read: their beginning is no event.
inline constexpr uint64_t kNameWaitRead = 6, kNameHeldRead = 7;
// Instants of the root track, light mode: samples, whose thread is an argument. One that read
// nothing; one that holds no GIL; those that hold that of a slot.
inline constexpr uint64_t kNameSample = 13, kNameSampleNoGil = 14, kNameSampleGilOfSlot = 15;
inline constexpr uint64_t kSlots = 4;
// Light mode, on a thread's GIL track. What it leads to is drawn as slices of readings.
inline constexpr uint64_t kNameAcquired = 19;
// Instants of the root track. An event that the format has no legal picture for, as bare numbers;
// RunFacts, all of them once, then what has changed.
inline constexpr uint64_t kNameRaw = 20, kNameRun = 21;
// Earlier recordings have, before the state of a thread in light mode that leaves its CPU, an
// instant of the root track: it holds none, or that of a slot.
inline constexpr uint64_t kNameNoGil = 8, kNameGilOfSlot = 9;
// clang-format off
inline constexpr const char* kFixedNames[] = {
    "GIL wait", "GIL held", "GIL released", "forced switch", "waits on", "GIL wait", "GIL held",
    "", "", "", "", "",
    "sample", "sample without a GIL",
    "sample with it", "sample with the 2nd", "sample with the 3rd", "sample with the 4th",
    "GIL acquired", "event", "recording"};
// clang-format on
// The bits of gil_sight().
inline constexpr uint8_t kSightRead = 0x08, kSightMine = 0x10, kSightSlotShift = 5,
                         kSightBits = kSightRead | kSightMine | 3 << kSightSlotShift;
// Arguments of slices, for people: the reader goes without. Of a wait, when it ends: behind whom
// most of it was, and what the holders did meanwhile; of a hold, when it begins and when it ends.
inline constexpr uint8_t kArgHolder = 1, kArgRunning = 2, kArgPreempted = 3, kArgAsleep = 4,
                         kArgHandoff = 5, kArgUnknown = 6, kArgContended = 7, kArgForced = 8,
                         kArgHeldPreempted = 9, kArgHeldAsleep = 10;
// And the reader's: of kNameRaw and of samples,
inline constexpr uint8_t kArgKind = 11, kArgPid = 12, kArgTid = 13, kArgCpu = 14, kArgState = 15,
                         kArgValue = 16, kArgOther = 17;
// of "waits on" in light mode: the holder, as its process calls it; of an end that is no event,
inline constexpr uint8_t kArgHolderId = 18, kArgCut = 19;
// and of kNameRun.
inline constexpr uint8_t kArgEvents = 20, kArgProbeHits = 21, kArgOtherProbeHits = 22,
                         kArgProbeCost = 23, kArgOwnCpu = 24;
// clang-format off
inline constexpr const char* kArgumentNames[] = {
    "holder_tid", "holder_running_ns", "holder_preempted_ns", "holder_asleep_ns", "handoff_ns",
    "unknown_ns", "contended", "release_forced", "held_preempted_ns", "held_asleep_ns",
    "kind", "pid", "tid", "cpu", "state", "value", "other", "holder_id", "cut",
    "events", "probe_hits", "other_probe_hits", "probe_cost_ns", "own_cpu_ns"};
// clang-format on
inline constexpr uint64_t kFirstThreadName = 32;  // interned ids of threads' names begin here

// The root track "giltop", whose instants carry what has no picture of its own. Their names:
inline constexpr uint64_t kRootTrack = 1;
inline constexpr const char* kRootTrackName = "giltop";
// The format that is written, and the one before it, which is read as well.
inline constexpr const char* kFormat = "giltop.trace/2";
inline constexpr const char* kFormat1 = "giltop.trace/1";
inline constexpr const char* kProcess = "process";  // ProcessFacts
inline constexpr const char* kSeen = "thread";      // was there when tracing began
inline constexpr const char* kFork = "started";
inline constexpr const char* kExec = "exec";
inline constexpr const char* kExit = "exit";
inline constexpr const char* kRename = "renamed";
inline constexpr const char* kNsId = "namespace id";  // of a thread in a PID namespace
inline constexpr const char* kGilRead = "GIL read";   // from memory
inline constexpr const char* kThreadRead = "thread read";
inline constexpr const char* kLost = "lost events";
inline constexpr const char* kUntil = "until";  // of kLost: CLOCK_BOOTTIME, ns
inline constexpr const char* kEnd = "end";

// Of a thread; what follows it, where a process has several, is for people. Described by the GIL's
// address.
inline constexpr const char* kGilTrackName = "GIL";

// Counters of a CPU. Their descriptions begin with one of these and the CPU's number: "stolen3".
inline constexpr const char* kStolen = "stolen";      // charged to no task since boot, ns
inline constexpr const char* kLead = "switch delay";  // of earlier recordings: as task::kLead
inline constexpr uint64_t kMaxCpus = 65536;           // all that an event can name

inline constexpr size_t kBlockBytes = 256 * 1024;     // of packets, before compression
inline constexpr size_t kMaxBlockBytes = 512 * 1024;  // the importer's limit for a bundle

}  // namespace giltop::trace
