// From scores to logits, in units of log 2: soft cap, ALiBi, bias, sizes and counts of slots, the mask.
#pragma once

#include "operands.h"

namespace patterndsl {

constexpr float LOG2E = 1.4426950408889634f, LN2 = 0.6931471805599453f;
constexpr float MINUS_INFINITY = -__builtin_inff();

// Whether anything but the mask changes a chunk's scores.
inline bool changed(const Call& call, const Chunk& c) {
  return call.softcap != 0 || call.slopes || call.schedule.has_bias() || c.added || c.counted;
}

// −inf where the mask of a panel drops a pair of group g.
inline void mask_group(const Chunk& c, int panel, int g, float* scores) {
  for (int i = g * RANK; i < g * RANK + c.group_size(g); i++)
    for (int j = 0; j < WIDE; j++) {
      float* s = scores + i * LANES + j * WIDTH;
      store(s, select(lanes_of(c.words[size_t(i) * c.panels + panel], j * WIDTH), load(s), all(MINUS_INFINITY)));
    }
}

inline Floats distance(const Tile& tile, const Chunk& c, int panel, int slot, int j) {
  Ints twice = 2 * load(tile.positions.data() + panel * LANES + j * WIDTH) - c.twice_position[slot];
  twice = twice < 0 ? -twice : twice;
  return 0.5f * __builtin_convertvector(twice, Floats);
}

// The derivative of the soft cap goes to `slope`, where given, as [slot][LANES].
inline void change_group(const Call& call, const Part& part, const Tile& tile, const Chunk& c, int64_t b, int64_t head,
                         int panel, int g, float* scores, float* slope) {
  const int begin = g * RANK, end = begin + c.group_size(g);
  if (call.softcap != 0) {
    const float cap = call.softcap * LOG2E;
    for (int i = begin * LANES; i < end * LANES; i += WIDTH) {
      Floats capped = tanh_of(load(scores + i) / cap);
      store(scores + i, cap * capped);
      if (slope) store(slope + i, 1.0f - capped * capped);
    }
  }
  for (int i = begin; i < end; i++)
    for (int j = 0; j < WIDE; j++) {
      float* s = scores + i * LANES + j * WIDTH;
      Floats x = load(s) + c.log_size[i];
      if (call.slopes) x -= call.slopes[head] * LOG2E * distance(tile, c, panel, i, j);
      if (c.counted) x += load(c.log_count.data() + (size_t(i) * c.panels + panel) * LANES + j * WIDTH);
      store(s, x);
    }
  if (!call.schedule.has_bias()) return;
  for (const Span& span : c.spans) {
    const Pool& pool = call.pools[call.schedule.source(part, span.source).pool];
    for (int lane = 0; lane < tile.lanes(panel); lane++) {
      const float* row = pool.bias + call.bias_row(b, head, tile.queries[panel * LANES + lane], pool);
      for (int i = std::max(begin, span.begin); i < std::min(end, span.end); i++)
        scores[i * LANES + lane] += LOG2E * row[c.slots[i]];
    }
  }
}

// The logits of a panel's queries over a chunk, [slot][LANES], where a group is kept at all; the runs of those groups
// go to `runs`.
inline void logits(const Call& call, const Part& part, const Tile& tile, const Chunk& c, int64_t b, int64_t head,
                   int panel, const float* keys, const float* queries, float* scores, float* slope,
                   std::vector<Run>& runs) {
  const int size = int(call.head_dim);
  const bool more = changed(call, c);
  runs.clear();
  for (int g = 0; g < c.groups(); g++) {
    const Kept kept = c.of(panel, g);
    if (kept == NONE) continue;
    dot(c.group_size(g), keys + int64_t(g) * RANK * size, size, queries, size, scores + g * RANK * LANES);
    if (more) change_group(call, part, tile, c, b, head, panel, g, scores, slope);
    if (kept == SOME) mask_group(c, panel, g, scores);
    const int begin = g * RANK, end = begin + c.group_size(g);
    if (!runs.empty() && runs.back().end == begin)
      runs.back().end = end;
    else
      runs.push_back({begin, end});
  }
}

}  // namespace patterndsl
