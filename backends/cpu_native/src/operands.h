// Reading operands: rows of queries, keys and values as floats, packed for the register-blocked products.
#pragma once

#include "tile.h"

namespace patterndsl {

inline void read_row(bool bfloat16, const void* data, int64_t offset, int size, float* to) {
  if (!bfloat16) {
    std::memcpy(to, static_cast<const float*>(data) + offset, 4 * size_t(size));
    return;
  }
  const uint16_t* from = static_cast<const uint16_t*>(data) + offset;
  for (int i = 0; i < size; i++) to[i] = from_bfloat16(from[i]);
}

inline int round_up(int x, int to) { return (x + to - 1) / to * to; }

// [slot][size], rows `ld` apart.
inline void pack_rows(const Call& call, const Part& part, const Chunk& c, int64_t b, int64_t key_head, bool values,
                      int64_t ld, std::vector<float>& to) {
  const int size = int(values ? call.value_dim : call.head_dim);
  to.resize(size_t(c.size) * ld);
  for (const Span& span : c.spans) {
    const Pool& pool = call.pools[call.schedule.source(part, span.source).pool];
    for (int i = span.begin; i < span.end; i++) {
      int64_t offset = ((b * pool.slots + c.slots[i]) * call.key_heads + key_head) * size;
      read_row(call.bfloat16, values ? pool.v : pool.k, offset, size, to.data() + i * ld);
    }
  }
}

inline int64_t strip_stride(const Chunk& c) { return int64_t(c.size) * RANK + 16; }

// Rows [slot][size] cut into strips of RANK components each, [strip][slot][RANK].
inline void pack_strips(const Chunk& c, const std::vector<float>& rows, int64_t ld, int size, std::vector<float>& to) {
  const int strips = (size + RANK - 1) / RANK;
  const int64_t stride = strip_stride(c);
  to.resize(size_t(strips * stride));
  for (int i = 0; i < c.size; i++) {
    const float* row = rows.data() + i * ld;
    float* strip = to.data() + i * RANK;
    for (int d = 0; d < size; d += RANK, strip += stride)
      std::memcpy(strip, row + d, 4 * size_t(std::min(RANK, size - d)));
  }
}

// Rows [lane][size] of a panel's queries (`ld` apart, 0 beyond them), times `factor`; and the same transposed,
// [size][LANES].
template <typename Offset>
inline void pack_panel(bool bfloat16, const void* data, int lanes, int size, int64_t ld, float factor,
                       Offset offset, float* rows, float* columns) {
  std::memset(rows, 0, 4 * size_t(LANES) * ld);
  for (int i = 0; i < lanes; i++) {
    read_row(bfloat16, data, offset(i), size, rows + i * ld);
    if (factor != 1.0f)
      for (int h = 0; h < size; h++) rows[i * ld + h] *= factor;
  }
  transpose(rows, ld, LANES, size, columns, LANES);
}

}  // namespace patterndsl
