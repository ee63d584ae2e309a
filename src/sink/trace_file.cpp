#include "sink/trace_file.h"

#include <fcntl.h>
#include <libdeflate.h>

#include <cerrno>
#include <csignal>
#include <cstdio>

#include "base/clock.h"
#include "base/keep_old.h"
#include "sink/proto_buffer.h"
#include "sink/trace_format.h"

namespace giltop {

Result<std::unique_ptr<TraceFile>> TraceFile::make(const std::string& path,
                                                   std::optional<Owner> owner) {
  const auto renamed = keep_old(path);
  if (!renamed) return renamed.error();
  const bool exists = !*renamed && access(path.c_str(), F_OK) == 0;
  Fd fd(
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0644));
  if (!fd) return system_error("cannot write " + path, errno);
  // Not to wait for ever for a FIFO's reader; but then to write like anyone.
  fcntl(fd.get(), F_SETFL, fcntl(fd.get(), F_GETFL) & ~O_NONBLOCK);
  if (owner && !exists && fchown(fd.get(), owner->uid, owner->gid) != 0) {
    // A file system without owners: the file stays root's, which is no reason not to record.
  }
  return std::unique_ptr<TraceFile>(new TraceFile(std::move(fd), path, !exists, *renamed));
}

TraceFile::TraceFile(Fd fd, std::string path, bool made, bool renamed)
    : fd_(std::move(fd)), path_(std::move(path)), made_(made), renamed_(renamed) {
  // Signals belong to the main thread.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void TraceFile::CompressorDeleter::operator()(libdeflate_compressor* c) const {
  libdeflate_free_compressor(c);
}

TraceFile::~TraceFile() { (void)close(); }

void TraceFile::write(std::string block) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return queue_.size() < kQueue; });
  queue_.push_back(std::move(block));
  changed_.notify_all();
}

void TraceFile::discard() {
  (void)close();
  if (made_) unlink(path_.c_str());
  if (renamed_) (void)std::rename((path_ + ".old").c_str(), path_.c_str());
}

Status TraceFile::close() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
  if (fd_ && !error_) {
    const int fd = fd_.release();
    // A network file system may report a failed write only here.
    if (::close(fd) != 0) error_ = system_error("cannot write " + path_, errno);
  }
  if (error_) return *error_;
  return ok();
}

bool TraceFile::failed() {
  const std::lock_guard lock(mutex_);
  return error_.has_value();
}

uint64_t TraceFile::bytes_written() {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

void TraceFile::run() {
  for (;;) {
    std::string block;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return closing_ || !queue_.empty(); });
      if (queue_.empty()) return;
      block = std::move(queue_.front());
      queue_.pop_front();
      changed_.notify_all();
      if (error_) continue;
    }
    put(block);
  }
}

void TraceFile::put(const std::string& block) {
  const auto fail = [&](Error error) {
    const std::lock_guard lock(mutex_);
    error_ = std::move(error);
  };
  // From the end of one to the next: where this thread is late, they are not.
  const bool far_between = clock_ns(CLOCK_MONOTONIC) - last_block_ns_ >= kFarBetween_ns;
  const bool is_little = far_between && block.size() <= kLittle;
  Compressor& compressor = is_little ? best_ : far_between ? good_ : fast_;
  if (!compressor)
    compressor.reset(libdeflate_alloc_compressor(is_little     ? kBestLevel
                                                 : far_between ? kGoodLevel
                                                               : kFastLevel));
  if (!compressor) return fail(Error("no memory to compress " + path_));
  packed_.resize(libdeflate_zlib_compress_bound(compressor.get(), block.size()));
  const size_t packed_bytes = libdeflate_zlib_compress(compressor.get(), block.data(), block.size(),
                                                       packed_.data(), packed_.size());
  if (packed_bytes == 0) return fail(Error("cannot compress " + path_));

  ProtoBuffer inner;
  inner.bytes(trace::packet::kCompressedPackets, std::string_view(packed_.data(), packed_bytes));
  ProtoBuffer record;
  record.bytes(trace::kTracePacket, inner.data());
  const std::string_view bytes = record.data();
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t put = ::write(fd_.get(), bytes.data() + done, bytes.size() - done);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return fail(system_error("cannot write " + path_, errno));
    done += static_cast<size_t>(put);
  }
  last_block_ns_ = clock_ns(CLOCK_MONOTONIC);
  const std::lock_guard lock(mutex_);
  bytes_ += bytes.size();
}

}  // namespace giltop
