#include "event/decode.h"

#include <cstring>

#include "giltop/abi.h"

namespace giltop {
namespace {

static_assert(static_cast<int>(TaskState::dead) == GT_TASK_DEAD);
static_assert(kRecordKinds.size() == GT_KINDS && kLightGils == GT_LIGHT_GILS);
static_assert(GT_TASK_STATE_MASK == 0x07 && GT_GIL_READ == 0x08 && GT_GIL_MINE == 0x10 &&
              GT_GIL_SLOT_SHIFT == 5);  // as gil_sight() and task_state() have it

template <typename Record>
bool read(std::span<const std::byte> bytes, Record& record) {
  if (bytes.size() != sizeof(record)) return false;
  std::memcpy(&record, bytes.data(), sizeof(record));
  return true;
}

std::string_view comm_of(const char (&comm)[GT_COMM]) {
  return std::string_view(comm, strnlen(comm, GT_COMM));
}

}  // namespace

bool Decoder::decode_rare(std::span<const std::byte> record, Event& event, uint32_t& ns_tid) {
  gt_header header;
  std::memcpy(&header, record.data(), sizeof(header));
  bool well_formed = header.tid != 0 && header.tid <= kMaxTid && header.tgid <= kMaxTid;
  bool wanted = true;
  switch (header.kind) {
    case GT_WAKEUP:
      well_formed = well_formed && record.size() == sizeof(gt_wakeup);
      event.kind = EventKind::wakeup;
      break;
    case GT_FORK: {
      gt_fork fork;
      well_formed = well_formed && read(record, fork) && fork.h.extra <= kMaxTid &&
                    fork.parent_tgid <= kMaxTid && fork.ns_tid <= kMaxTid;
      if (!well_formed) break;
      event.kind = EventKind::fork;
      event.value = uint64_t{fork.parent_tgid} << 32 | fork.h.extra;
      event.other = tables_.intern(comm_of(fork.comm), header.ts_ns);
      ns_tid = fork.ns_tid;
      break;
    }
    case GT_EXEC: {
      gt_exec exec;
      well_formed = well_formed && read(record, exec) && exec.ns_tid <= kMaxTid;
      if (!well_formed) break;
      if (exec.h.state & GT_LEFT) {  // to the model it ends here
        event.kind = EventKind::exit;
        event.state = 2;  // its user may be another's already: a setuid program's
        break;
      }
      wanted = !(exec.h.state & GT_UNSEEN);
      if (!wanted) break;
      event.kind = EventKind::exec;
      event.other = tables_.intern(comm_of(exec.comm), header.ts_ns);
      ns_tid = exec.ns_tid;
      break;
    }
    case GT_FOUND: {
      gt_found found;
      well_formed = well_formed && read(record, found) && found.ns_tid <= kMaxTid;
      wanted = false;
      if (well_formed) ns_tid = found.ns_tid;
      break;
    }
    case GT_EXIT: {
      gt_exit exit;
      well_formed = well_formed && read(record, exit);
      if (!well_formed) break;
      event.kind = EventKind::exit;
      event.state = exit.h.state == GT_LAST;
      event.value = uint64_t{exit.h.extra} + 1;
      event.other = tables_.intern(comm_of(exit.comm), header.ts_ns);
      break;
    }
    case GT_RENAME: {
      gt_rename rename;
      well_formed = well_formed && read(record, rename);
      if (!well_formed) break;
      event.kind = EventKind::thread_name;
      event.other = tables_.intern(comm_of(rename.comm), header.ts_ns);
      break;
    }
    case GT_SAMPLE:
      well_formed = well_formed && record.size() == sizeof(gt_sample);
      event.kind = EventKind::sample;
      event.state = header.state;
      break;
    case GT_ENTRY:
      well_formed = well_formed && record.size() == sizeof(gt_entry);
      wanted = false;
      break;
    default:
      well_formed = false;
  }
  if (!well_formed) counts_.malformed++;
  return well_formed && wanted;
}

}  // namespace giltop
