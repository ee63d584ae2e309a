#include "sink/page_spans.h"

#include <libdeflate.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace giltop {
namespace {

constexpr int kLevel = 7;                  // of compression
constexpr size_t kPartBytes = 512 * 1024;  // of spans, compressed in one go: some 15 ms
constexpr uint64_t kFinest_ns = 1000;

void put_number(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(0x80 | (value & 0x7f)));
  out.push_back(static_cast<char>(value));
}

struct Encoded {
  std::string codes, values;
};

Encoded encode_row(const SpanRow& row, const std::unordered_map<uint64_t, size_t>& gils) {
  Encoded out;
  size_t gil = 0, part = 0;
  for (size_t i = 0; i < row.spans.size(); i++) {
    for (; gil < row.gils.size() && row.gils[gil].first == i; gil++) {
      const auto place = gils.find(row.gils[gil].second);
      if (place == gils.end()) continue;
      out.codes.push_back(static_cast<char>(kGilCode));
      put_number(out.values, place->second);
    }
    const Span span = row.spans[i];
    out.codes.push_back(static_cast<char>(span.cell));
    if (span.cell != kMixedCode) {
      put_number(out.values, span.ns);
      continue;
    }
    const size_t first = part;
    for (uint64_t sum = 0; sum < span.ns;) sum += row.parts[part++].ns;
    put_number(out.values, part - first);
    for (size_t p = first; p < part; p++) {
      put_number(out.values, row.parts[p].cell);
      put_number(out.values, row.parts[p].ns);
    }
  }
  return out;
}

std::string base64(std::string_view bytes) {
  static constexpr char kDigits[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t three = 0;
    for (size_t k = 0; k < 3; k++)
      three = three << 8 | (i + k < bytes.size() ? static_cast<uint8_t>(bytes[i + k]) : 0u);
    for (size_t k = 0; k < 4; k++)
      out.push_back(i + k > bytes.size() ? '=' : kDigits[three >> (18 - 6 * k) & 63]);
  }
  return out;
}

struct CompressorDeleter {
  void operator()(libdeflate_compressor* c) const { libdeflate_free_compressor(c); }
};
using Compressor = std::unique_ptr<libdeflate_compressor, CompressorDeleter>;

Compressor make_compressor() { return Compressor(libdeflate_alloc_compressor(kLevel)); }

std::string packed_part(std::string_view bytes, libdeflate_compressor* compressor) {
  std::string out(libdeflate_zlib_compress_bound(compressor, bytes.size()), '\0');
  out.resize(
      libdeflate_zlib_compress(compressor, bytes.data(), bytes.size(), out.data(), out.size()));
  return base64(out);
}

// In parts; nothing, as soon as these are more than `most_bytes`.
std::optional<std::string> packed_parts(std::string_view bytes, size_t most_bytes,
                                        const PageProgress& progress) {
  const Compressor compressor = make_compressor();
  std::string out;
  for (size_t done = 0; done < bytes.size(); done += kPartBytes) {
    progress(done, bytes.size());
    if (done != 0) out.push_back(kPartsApart);
    out += packed_part(bytes.substr(done, kPartBytes), compressor.get());
    if (out.size() > most_bytes) return std::nullopt;
  }
  return out;
}

}  // namespace

std::string encode_spans(const Spans& spans, const Snapshot& snapshot) {
  std::unordered_map<uint64_t, const SpanRow*> rows;
  for (const SpanRow& row : spans.rows) rows.emplace(row.thread, &row);
  std::string heads, bodies;
  size_t count = 0;
  for (size_t p = 0; p < snapshot.processes.size(); p++) {
    const ProcessSnapshot& process = snapshot.processes[p];
    std::unordered_map<uint64_t, size_t> gils;
    for (size_t g = 0; g < process.gils.size(); g++) gils.emplace(process.gils[g].number, g);
    for (size_t t = 0; t < process.threads.size(); t++) {
      const auto found = rows.find(process.threads[t].number);
      if (found == rows.end() || process.threads[t].folded != 0) continue;
      const Encoded row = encode_row(*found->second, gils);
      for (const uint64_t head :
           {p, t, found->second->first_ns - snapshot.first_ns, row.codes.size(), row.values.size()})
        put_number(heads, head);
      bodies += row.codes + row.values;
      count++;
    }
  }
  std::string out;
  put_number(out, count);
  return out + heads + bodies;
}

std::string packed(const std::string& bytes) { return packed_part(bytes, make_compressor().get()); }

std::string packed_spans(Spans& spans, const Snapshot& snapshot, size_t most_bytes,
                         const PageProgress& progress) {
  const size_t most_compressed = most_bytes / 4 * 3;
  // A span that has been compressed takes two bytes at least, as a rule: where there are so many
  // that they would not fit, not to try saves time.
  constexpr size_t kLeastBytes = 2;
  constexpr uint64_t kCoarsest_ns = uint64_t{1} << 40;
  // What takes time is to go through the spans, which become fewer with each round, and to try
  // whether they fit. A try may be the last one or not: it is said to do half of what was left.
  const uint64_t all = spans.count();
  uint64_t left = all;
  const auto tell = [&](uint64_t now_left) {
    left = std::min(left, now_left);
    if (progress) progress(all - left, all);
  };
  for (;;) {
    tell(spans.count());
    const bool last = spans.resolution_ns >= kCoarsest_ns;
    if (last || spans.count() * kLeastBytes <= most_compressed) {
      const auto before = static_cast<double>(left);
      const auto tried = [&](uint64_t done, uint64_t size) {
        const double part = static_cast<double>(done) / static_cast<double>(size);
        tell(static_cast<uint64_t>(before * (1 - part / 2)));
      };
      auto bytes = packed_parts(encode_spans(spans, snapshot), last ? SIZE_MAX : most_bytes, tried);
      if (bytes) return *std::move(bytes);
    }
    spans.coarsen(std::max(kFinest_ns, spans.resolution_ns * 2));
  }
}

}  // namespace giltop
