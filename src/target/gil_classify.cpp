#include "target/gil_classify.h"

#include <algorithm>
#include <optional>
#include <set>

namespace giltop {
namespace {

// struct _gil_runtime_state, 3.7 to 3.15, bytes: cond, mutex and switch_cond follow each other.
// Builds without the GIL have `int enabled` before it all, which moves the rest by 8.
constexpr uint32_t kCond = 0x20, kLocked = 0x10;
constexpr uint32_t kFreeThreadedShift = 8;

enum class Verdict : uint8_t { open, acquire, release, gave_up, foreign };

struct Evidence {
  SiteProof proof = SiteProof::callee;
  uint64_t witness = 0;
};
struct Opinion {
  Verdict verdict = Verdict::open;
  Evidence evidence = {};
};

int64_t minus(int64_t a, int64_t b) {  // values of a hostile file may overflow
  return static_cast<int64_t>(static_cast<uint64_t>(a) - static_cast<uint64_t>(b));
}

SiteProbe probe_of(const CallSite& call, SiteKind kind, const GilLayout& layout) {
  const bool on_switch_cond = kind == SiteKind::acquire || kind == SiteKind::forced;
  const uint32_t offset = on_switch_cond ? layout.switch_cond_offset : layout.cond_offset;
  SiteProbe on_call{call.address, call.file_offset, GilBase::argument, static_cast<int32_t>(offset),
                    call.emulated};
  if (!call.earlier) return on_call;
  const int64_t below = minus(offset, call.earlier->argument);
  if (below != static_cast<int32_t>(below)) return on_call;
  return {call.earlier->address, call.file_offset - (call.address - call.earlier->address),
          call.earlier->base, static_cast<int32_t>(below), true};
}

class Classifier {
 public:
  Classifier(const CallSites& calls, const Machine& machine, bool free_threaded)
      : all_(calls),
        cond_difference_(machine.cond_size + machine.mutex_size),
        switch_cond_(kCond + machine.cond_size + machine.mutex_size),
        free_threaded_(free_threaded),
        is_take_gil_(calls.functions.size()) {
    for (const CallSite& call : calls.calls) {
      if (!call.checked) continue;
      calls_.push_back({&call, Verdict::open, {}});
      if (call.callee == CondCall::timedwait) is_take_gil_[call.function] = true;
    }
  }

  Result<ClassifiedSites> structured() {
    judge_by_store();
    judge_by_comparison();
    judge_by_function();
    settle_waits();
    ClassifiedSites result;
    const uint32_t shift = free_threaded_ ? kFreeThreadedShift : 0;
    result.layout = {kCond + shift, switch_cond_ + shift};
    if (auto complete = collect(result); !complete) return std::move(complete).error();
    if (!difference_proved()) {
      return Error("no call shows where the GIL's condition variables lie in its struct");
    }
    return result;
  }

  Result<ClassifiedSites> separate() {
    std::set<int64_t> switch_conds, conds;
    for (const Judged& judged : calls_) {
      const CallSite& call = *judged.call;
      if (call.argument.kind != CodeAddress::Kind::absolute) continue;
      if (call.callee == CondCall::wait) switch_conds.insert(call.argument.value);
    }
    for (Judged& judged : calls_) {
      const CallSite& call = *judged.call;
      if (call.callee != CondCall::signal) continue;
      judged.verdict = Verdict::foreign;
      if (call.argument.kind != CodeAddress::Kind::absolute) continue;
      judged.evidence = {SiteProof::variable, 0};
      if (switch_conds.contains(call.argument.value)) {
        if (is_take_gil_[call.function]) judged.verdict = Verdict::acquire;
      } else {
        judged.verdict = Verdict::release;
        conds.insert(call.argument.value);
      }
    }
    if (switch_conds.size() != 1 || conds.size() != 1) {
      return Error("the GIL's condition variables (gil_cond, switch_cond) cannot be told apart");
    }
    const int64_t cond = *conds.begin(), switch_cond = *switch_conds.begin();
    constexpr int64_t kMaxDistance = 1 << 20;  // bytes: both are in .bss
    if (minus(cond, switch_cond) > kMaxDistance || minus(switch_cond, cond) > kMaxDistance) {
      return Error("the GIL's condition variables lie too far from each other");
    }
    for (Judged& judged : calls_) {
      const CallSite& call = *judged.call;
      if (call.callee == CondCall::wait) {
        judged.verdict = call.argument.known() ? Verdict::release : Verdict::foreign;
        judged.evidence = {SiteProof::variable, 0};
      } else if (call.callee == CondCall::timedwait) {
        const bool other = call.argument.known() && call.argument.value != cond;
        judged.verdict =
            other || !has(call.function, Verdict::acquire) ? Verdict::foreign : Verdict::acquire;
        judged.evidence = {call.argument.known() ? SiteProof::variable : SiteProof::function, 0};
      }
    }
    const int64_t lower = std::min(cond, switch_cond);
    ClassifiedSites result;
    result.layout = {static_cast<uint32_t>(cond - lower),
                     static_cast<uint32_t>(switch_cond - lower)};
    if (auto complete = collect(result); !complete) return std::move(complete).error();
    return result;
  }

 private:
  struct Judged {
    const CallSite* call;
    Verdict verdict;        // of a wait or timedwait: foreign, or anything else to keep it
    Evidence evidence;      // for the verdict
    bool by_store = false;  // rule 2
  };

  std::optional<SiteProof> store_before(const CallSite& call, int64_t distance,
                                        FlagStore::Value value) const {
    std::optional<SiteProof> proof;
    for (const FlagStore& store : all_.functions[call.function].flag_stores) {
      if (!store.where.same_base(call.argument) ||
          minus(call.argument.value, store.where.value) != distance) {
        continue;
      }
      if (store.value == value) return SiteProof::flag_constant;
      if (store.value == FlagStore::Value::other) proof = SiteProof::flag_written;
    }
    return proof;
  }

  bool has(size_t function, Verdict verdict) const {
    return std::any_of(calls_.begin(), calls_.end(), [&](const Judged& judged) {
      return judged.call->function == function && judged.verdict == verdict &&
             judged.call->callee == CondCall::signal;
    });
  }

  // Rule 2.
  void judge_by_store() {
    for (Judged& judged : calls_) {
      const CallSite& call = *judged.call;
      if (call.callee != CondCall::signal) continue;
      if (call.argument.kind == CodeAddress::Kind::foreign) judged.verdict = Verdict::foreign;
      if (!call.argument.known()) continue;
      const auto acquires = store_before(call, switch_cond_ - kLocked, FlagStore::Value::one);
      const auto releases = store_before(call, kCond - kLocked, FlagStore::Value::zero);
      if (acquires.has_value() == releases.has_value()) continue;
      judged.verdict = acquires ? Verdict::acquire : Verdict::release;
      judged.evidence = {acquires ? *acquires : *releases, 0};
      judged.by_store = true;
    }
  }

  // What a proved call says about another one's argument.
  Verdict compare(const Judged& proved, const CallSite& call) const {
    const CodeAddress& known = proved.call->argument;
    const bool comparable =
        known.same_base(call.argument) &&
        (known.kind == CodeAddress::Kind::absolute || proved.call->function == call.function);
    if (!comparable) return Verdict::open;
    const int64_t cond =
        proved.verdict == Verdict::release ? known.value : minus(known.value, cond_difference_);
    const int64_t distance = minus(call.argument.value, cond);
    if (distance == 0) return Verdict::release;
    return distance == cond_difference_ ? Verdict::acquire : Verdict::open;
  }

  // An argument `call` shares with one proved by its store: in the same function or at the same
  // address first; else by its offset alone from a register, as long as that is unambiguous.
  Opinion compare_all(const CallSite& call) const {
    bool acquire = false, release = false;
    uint64_t witness = 0;
    for (const Judged& proved : calls_) {
      if (!proved.by_store) continue;
      const Verdict verdict = compare(proved, call);
      if (verdict != Verdict::open) return {verdict, evidence_of(proved, verdict)};
      if (proved.call->argument.kind == CodeAddress::Kind::relative &&
          call.argument.kind == CodeAddress::Kind::relative &&
          proved.call->argument.value == call.argument.value) {
        acquire |= proved.verdict == Verdict::acquire;
        release |= proved.verdict == Verdict::release;
        witness = proved.call->address;
      }
    }
    if (acquire == release) return {};
    return {acquire ? Verdict::acquire : Verdict::release, {SiteProof::same_offset, witness}};
  }

  // What it means that compare() with `proved` came to `verdict`.
  static Evidence evidence_of(const Judged& proved, Verdict verdict) {
    return {proved.verdict == verdict ? SiteProof::same_argument : SiteProof::beside,
            proved.call->address};
  }

  // Rules 3 and 5.
  void judge_by_comparison() {
    for (Judged& judged : calls_) {
      const CallSite& call = *judged.call;
      if (call.callee != CondCall::signal || judged.verdict != Verdict::open) continue;
      if (!call.argument.known()) continue;
      Opinion opinion = compare_all(call);
      if (opinion.verdict == Verdict::open) opinion = compare_with_waits(call);
      if (opinion.verdict == Verdict::open) opinion.verdict = Verdict::foreign;
      judged.verdict = opinion.verdict;
      judged.evidence = opinion.evidence;
    }
    for (Judged& judged : calls_) {
      // In a free-threaded build take_gil itself signals cond, when it finds that the GIL was
      // switched off meanwhile: nothing is released there, and nothing was cleared before it.
      if (free_threaded_ && judged.verdict == Verdict::release && !judged.by_store &&
          is_take_gil_[judged.call->function]) {
        judged.verdict = Verdict::gave_up;
      }
    }
  }

  // A signal beside the wait of the same function: cond beside switch_cond.
  Opinion compare_with_waits(const CallSite& call) const {
    for (const Judged& judged : calls_) {
      const CallSite& wait = *judged.call;
      if (wait.function != call.function || !wait.argument.same_base(call.argument)) continue;
      const int64_t distance = minus(wait.argument.value, call.argument.value);
      const Evidence evidence = {SiteProof::beside, wait.address};
      if (wait.callee == CondCall::wait && distance == cond_difference_) {
        return {Verdict::release, evidence};
      }
      if (wait.callee == CondCall::timedwait && distance == -cond_difference_) {
        return {Verdict::acquire, evidence};
      }
    }
    return {};
  }

  // Rule 4.
  void judge_by_function() {
    for (Judged& judged : calls_) {
      if (judged.call->callee != CondCall::signal || judged.verdict != Verdict::open) continue;
      judged.verdict = is_take_gil_[judged.call->function] ? Verdict::acquire : Verdict::release;
      judged.evidence = {SiteProof::function, 0};
    }
  }

  // Which timedwait and wait calls are the GIL's.
  void settle_waits() {
    size_t in_take_gil = 0, timedwaits = 0;
    for (const Judged& judged : calls_) {
      if (judged.call->callee != CondCall::timedwait) continue;
      ++timedwaits;
      if (has(judged.call->function, Verdict::acquire)) ++in_take_gil;
    }
    for (Judged& judged : calls_) {
      const CallSite& call = *judged.call;
      if (call.callee == CondCall::signal) continue;
      if (call.argument.known()) {
        // A known argument must not contradict the proved ones it can be compared with.
        const Verdict expected =
            call.callee == CondCall::timedwait ? Verdict::release : Verdict::acquire;
        const auto evidence = fits(call, expected);
        if (!evidence) judged.verdict = Verdict::foreign;
        judged.evidence = evidence.value_or(Evidence());
      } else if (call.argument.kind == CodeAddress::Kind::foreign) {
        judged.verdict = Verdict::foreign;
      }
      if (call.callee == CondCall::timedwait && judged.verdict != Verdict::foreign) {
        // Unoptimized builds have PyCOND_TIMEDWAIT in a function of its own, the only one then.
        const bool alone = in_take_gil == 0 && timedwaits == 1;
        if (!alone && !has(call.function, Verdict::acquire)) judged.verdict = Verdict::foreign;
        if (!alone && !call.argument.known()) judged.evidence = {SiteProof::function, 0};
      }
    }
  }

  // `expected` names the variable: cond is what a release signals, switch_cond what an acquire
  // does.
  std::optional<Evidence> fits(const CallSite& call, Verdict expected) const {
    bool compared = false;
    std::optional<Evidence> by_offset;
    for (const Judged& judged : calls_) {
      if (judged.call->callee != CondCall::signal) continue;
      if (judged.verdict != Verdict::acquire && judged.verdict != Verdict::release) continue;
      if (!judged.call->argument.known()) continue;
      const Verdict verdict = compare(judged, call);
      if (verdict == expected) return evidence_of(judged, verdict);
      if (judged.call->function == call.function &&
          judged.call->argument.same_base(call.argument)) {
        compared = true;
      }
      // A forced switch whose release is in another part of its function: the offset decides.
      if (judged.call->argument.kind == call.argument.kind && judged.verdict == expected &&
          judged.call->argument.value == call.argument.value) {
        by_offset = Evidence{SiteProof::same_offset, judged.call->address};
      }
      if (judged.call->argument.kind == call.argument.kind && judged.verdict != expected) {
        const int64_t distance = minus(call.argument.value, judged.call->argument.value);
        if (distance == (expected == Verdict::acquire ? cond_difference_ : -cond_difference_)) {
          if (!by_offset) by_offset = Evidence{SiteProof::offset_beside, judged.call->address};
        }
      }
    }
    if (by_offset) return by_offset;
    if (compared || call.callee != CondCall::timedwait || !has(call.function, Verdict::acquire)) {
      return std::nullopt;
    }
    return Evidence{SiteProof::function, 0};
  }

  bool difference_proved() const {
    bool acquire = false, release = false;
    for (const Judged& judged : calls_) {
      acquire |= judged.by_store && judged.verdict == Verdict::acquire;
      release |= judged.by_store && judged.verdict == Verdict::release;
      if (judged.call->callee == CondCall::signal && judged.verdict != Verdict::foreign &&
          compare_with_waits(*judged.call).verdict == judged.verdict) {
        return true;
      }
    }
    return acquire && release;
  }

  Status collect(ClassifiedSites& result) const {
    bool found[5] = {};
    for (const Judged& judged : calls_) {
      if (judged.verdict == Verdict::foreign) continue;
      const CallSite& call = *judged.call;
      SiteKind kind = SiteKind::wait;
      if (call.callee == CondCall::wait) kind = SiteKind::forced;
      if (call.callee == CondCall::signal) {
        kind = judged.verdict == Verdict::acquire   ? SiteKind::acquire
               : judged.verdict == Verdict::gave_up ? SiteKind::gave_up
                                                    : SiteKind::release;
      }
      found[static_cast<int>(kind)] = true;
      result.sites.push_back(
          {kind, call.address, call.file_offset, call.length,
           all_.functions[call.function].bounds.begin, judged.evidence.proof,
           judged.evidence.witness,
           kind == SiteKind::wait ? call.file_offset + (call.resume - call.address) : 0,
           probe_of(call, kind, result.layout)});
    }
    // A build without forced switches (FORCE_SWITCHING undefined) is possible, if unheard of.
    for (const SiteKind kind : {SiteKind::wait, SiteKind::acquire, SiteKind::release}) {
      if (!found[static_cast<int>(kind)]) {
        return Error(std::string("no ") + to_string(kind) + " site found");
      }
    }
    return ok();
  }

  const CallSites& all_;
  int64_t cond_difference_;  // bytes from cond to switch_cond
  uint32_t switch_cond_;     // its offset in the struct, without the shift
  bool free_threaded_;
  std::vector<bool> is_take_gil_;  // by function: it calls pthread_cond_timedwait
  std::vector<Judged> calls_;
};

}  // namespace

Result<ClassifiedSites> classify_gil_sites(const CallSites& calls, const Machine& machine,
                                           bool separate_statics, bool free_threaded) {
  Classifier classifier(calls, machine, free_threaded);
  return separate_statics ? classifier.separate() : classifier.structured();
}

}  // namespace giltop
