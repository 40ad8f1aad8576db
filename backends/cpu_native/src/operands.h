// Reading operands: rows of queries, keys and values as floats, packed for the register-blocked products.
#pragma once

#include "tile.h"

namespace patterndsl {

inline void read_row(bool bfloat16, const void* data, int64_t offset, int size, float factor, float* __restrict to) {
  int i = 0;
  if (!bfloat16) {
    const float* from = static_cast<const float*>(data) + offset;
    for (; i + WIDTH <= size; i += WIDTH) store(to + i, factor * load(from + i));
    for (; i < size; i++) to[i] = factor * from[i];
    return;
  }
  const uint16_t* from = static_cast<const uint16_t*>(data) + offset;
  for (; i < size; i++) to[i] = factor * from_bfloat16(from[i]);
}

// Rows lie a whole token's heads apart, which the processor's own prefetching does not follow.
inline void prefetch_row(bool bfloat16, const void* data, int64_t offset, int size) {
  const int width = bfloat16 ? 2 : 4;
  const char* from = static_cast<const char*>(data) + offset * width;
  for (int at = 0; at < size * width; at += 64) __builtin_prefetch(from + at, 0, 2);
}

constexpr int AHEAD = 8;  // rows

inline int round_up(int x, int to) { return (x + to - 1) / to * to; }

// Keys or values times `factor`, [slot][size].
inline void pack_rows(const Call& call, const Part& part, const Chunk& c, int64_t b, int64_t key_head, bool values,
                      float factor, std::vector<float>& to) {
  const int size = int(values ? call.value_dim : call.head_dim);
  to.resize(size_t(c.size) * size);
  for (const Span& span : c.spans) {
    const Pool& pool = call.pools[call.schedule.source(part, span.source).pool];
    const void* data = values ? pool.v : pool.k;
    auto offset = [&](int i) { return ((b * pool.slots + c.slots[i]) * call.key_heads + key_head) * size; };
    for (int i = span.begin; i < span.end; i++) {
      if (i + AHEAD < span.end) prefetch_row(call.bfloat16, data, offset(i + AHEAD), size);
      read_row(call.bfloat16, data, offset(i), size, factor, to.data() + i * size);
    }
  }
}

// The keys and values of slots begin … end − 1 of a chunk come nearer, for one key head.
inline void prefetch_keys(const Call& call, const Part& part, const Chunk& c, int64_t b, int64_t key_head, int begin,
                          int end) {
  for (const Span& span : c.spans) {
    const Pool& pool = call.pools[call.schedule.source(part, span.source).pool];
    for (int i = std::max(begin, span.begin); i < std::min(end, span.end); i++) {
      const int64_t row = (b * pool.slots + c.slots[i]) * call.key_heads + key_head;
      prefetch_row(call.bfloat16, pool.k, row * call.head_dim, int(call.head_dim));
      prefetch_row(call.bfloat16, pool.v, row * call.value_dim, int(call.value_dim));
    }
  }
}

inline int64_t strip_stride(const Chunk& c) { return int64_t(c.size) * RANK + 16; }

// Rows [slot][size] cut into strips of RANK components each, [strip][slot][RANK].
inline void pack_strips(const Chunk& c, const std::vector<float>& rows, int size, std::vector<float>& to) {
  const int strips = (size + RANK - 1) / RANK;
  const int64_t stride = strip_stride(c);
  to.resize(size_t(strips * stride));
  for (int i = 0; i < c.size; i++) {
    const float* row = rows.data() + i * size;
    float* strip = to.data() + i * RANK;
    int d = 0;
    for (; d + RANK <= size; d += RANK, strip += stride) std::memcpy(strip, row + d, 4 * RANK);  // of a known size
    for (int j = 0; d < size; d++, j++) strip[j] = row[d];
  }
}

// Rows [lane][size] of a panel's queries (`ld` apart, 0 beyond them), times `factor`; and the same transposed,
// [size][LANES]. `following`: how many rows there are to come nearer, those of this panel and more.
template <typename Offset>
inline void pack_panel(bool bfloat16, const void* data, int lanes, int following, int size, int64_t ld, float factor,
                       Offset offset, float* rows, float* columns) {
  if (lanes < LANES || size < ld) std::memset(rows, 0, 4 * size_t(LANES) * ld);
  for (int i = 0; i < lanes; i++) {
    if (i + AHEAD < following) prefetch_row(bfloat16, data, offset(i + AHEAD), size);
    read_row(bfloat16, data, offset(i), size, factor, rows + i * ld);
  }
  transpose(rows, ld, LANES, size, columns, LANES);
}

}  // namespace patterndsl
