// The backward pass over one tile of queries: it recomputes the logits, writes the gradients of its queries, and adds
// to those of the keys and values that it visits.
#pragma once

#include "logits.h"

namespace patterndsl {
namespace {

constexpr int CHUNK_BYTES = 131072;  // of keys, values and what is computed of them
constexpr int MOST_CHUNKS = 16;      // whose masks a tile holds at a time
constexpr int TOGETHER = 8;          // panels whose sums over queries are taken at once

// The gradients of keys and values of one pool, for one key head.
struct Sums {
  float *dk, *dv;
  int64_t k_stride, v_stride, first;  // the slot of row 0
};

struct Scratch {
  Tile tile;
  std::vector<Chunk> chunks = std::vector<Chunk>(MOST_CHUNKS);
  std::vector<Run> runs;
  // For each head of the group and panel: queries and output gradients, by rows and transposed, with what goes with
  // them, and the gradient of the queries, transposed.
  std::vector<float> q_rows, q_columns, d_rows, d_columns, dq, lse, delta;
  std::vector<float> keys, key_strips, values, slope, out, apart, weights[TOGETHER], d_logits[TOGETHER];
  std::vector<float*> dk, dv;  // of each slot of the chunk
  int first_of_group = 0, group = 1;  // the query heads of each key head that are computed
};

// What the tasks of a part share.
struct Pass {
  const Call& call;
  const Part& part;
  bool first;
  int dim, value_dim, ld, value_ld;  // ld: rounded up to whole vectors
};

void read_queries(const Pass& x, Scratch& w, int64_t b, int64_t kv) {
  const Call& call = x.call;
  const int panels = w.tile.panels, group = w.group;
  const size_t all_panels = size_t(group) * panels;
  w.q_rows.resize(all_panels * LANES * x.ld), w.q_columns.resize(all_panels * LANES * x.dim);
  w.d_rows.resize(all_panels * LANES * x.value_ld), w.d_columns.resize(all_panels * LANES * x.value_dim);
  w.dq.assign(all_panels * LANES * x.dim, 0.0f);
  w.lse.assign(all_panels * LANES, 0.0f), w.delta.assign(all_panels * LANES, 0.0f);
  for (int g = 0; g < group; g++)
    for (int p = 0; p < panels; p++) {
      const size_t at = size_t(g) * panels + p;
      auto row = [&](int i) {
        return call.row(b, w.tile.queries[p * LANES + i], kv * call.group() + w.first_of_group + g);
      };
      pack_panel(
          call.bfloat16, call.q, w.tile.lanes(p), w.tile.lanes(p), x.dim, x.ld, call.scale, [&](int i) { return row(i) * x.dim; },
          w.q_rows.data() + at * LANES * x.ld, w.q_columns.data() + at * LANES * x.dim);
      float* d_rows = w.d_rows.data() + at * LANES * x.value_ld;
      pack_panel(
          false, call.d_out, w.tile.lanes(p), w.tile.lanes(p), x.value_dim, x.value_ld, 1.0f,
          [&](int i) { return row(i) * x.value_dim; }, d_rows, w.d_columns.data() + at * LANES * x.value_dim);
      for (int i = 0; i < w.tile.lanes(p); i++) {
        const bool empty = call.lse[row(i)] == MINUS_INFINITY;
        const float* out = call.out + row(i) * x.value_dim;
        if (i + AHEAD < w.tile.lanes(p)) prefetch_row(false, call.out, row(i + AHEAD) * x.value_dim, x.value_dim);
        float sum = empty ? 0.0f : -call.d_lse[row(i)];
        int d = 0;
        Floats sums{};
        for (; d + WIDTH <= x.value_dim; d += WIDTH) sums += load(d_rows + i * x.value_ld + d) * load(out + d);
        for (int l = 0; l < WIDTH; l++) sum += sums[l];
        for (; d < x.value_dim; d++) sum += d_rows[i * x.value_ld + d] * out[d];
        w.delta[at * LANES + i] = sum;
        w.lse[at * LANES + i] = empty ? 0.0f : call.lse[row(i)] * LOG2E;
      }
    }
}

// From logits and the products of values with the output's gradient to the gradient of the logits (`d_logits`).
void differentiate(const std::vector<Run>& runs, const float* lse, const float* delta, float* weights,
                   float* d_logits) {
  for (const Run& run : runs)
    for (int at = run.begin * LANES; at < run.end * LANES; at += LANES)
      for (int j = 0; j < WIDE; j++) {
        const int i = at + j * WIDTH;
        Floats p = exp2(load(weights + i) - load(lse + j * WIDTH));
        store(weights + i, p);
        store(d_logits + i, p * (load(d_logits + i) - load(delta + j * WIDTH)));
      }
}

// The gradients of slopes and bias, and back through the soft cap.
void change_back(const Pass& x, Scratch& w, const Chunk& c, int64_t b, int64_t head, int panel, float* d_logits,
                 float* d_slopes) {
  const Call& call = x.call;
  if (call.slopes) {
    Floats sum{};
    for (const Run& run : w.runs)
      for (int i = run.begin; i < run.end; i++)
        for (int j = 0; j < WIDE; j++)
          sum += load(d_logits + i * LANES + j * WIDTH) * distance(w.tile, c, panel, i, j);
    for (int i = 0; i < WIDTH; i++) d_slopes[head] -= sum[i];
  }
  if (call.schedule.has_bias())
    for (const Span& span : c.spans) {
      const Pool& pool = call.pools[call.schedule.source(x.part, span.source).pool];
      for (int lane = 0; lane < w.tile.lanes(panel); lane++) {
        float* row = pool.dbias + call.bias_row(b, head, w.tile.queries[panel * LANES + lane], pool);
        for (const Run& run : w.runs)
          for (int i = std::max(run.begin, span.begin); i < std::min(run.end, span.end); i++)
            row[c.slots[i]] += d_logits[i * LANES + lane];
      }
    }
  if (call.softcap != 0)
    for (const Run& run : w.runs)
      for (int i = run.begin * LANES; i < run.end * LANES; i += WIDTH)
        store(d_logits + i, load(d_logits + i) * load(w.slope.data() + i));
}

// A panel's weights and gradients of logits, in the buffers of `slot`, and the gradient of its queries.
void one_panel(const Pass& x, Scratch& w, const Chunk& c, int64_t b, int64_t head, size_t at, int panel, int slot,
               float* d_slopes) {
  const Call& call = x.call;
  const bool capped = call.softcap != 0;
  float *weights = w.weights[slot].data(), *d_logits = w.d_logits[slot].data();
  logits(call, x.part, w.tile, c, b, head, panel, w.keys.data(), w.q_columns.data() + at * LANES * x.dim, weights,
         capped ? w.slope.data() : nullptr, w.runs);
  if (w.runs.empty()) return;
  for (int g = 0; g < c.groups(); g++)
    if (c.of(panel, g) != NONE)
      dot(c.group_size(g), w.values.data() + int64_t(g) * RANK * x.value_dim, x.value_dim,
          w.d_columns.data() + at * LANES * x.value_dim, x.value_dim, d_logits + g * RANK * LANES);
  differentiate(w.runs, w.lse.data() + at * LANES, w.delta.data() + at * LANES, weights, d_logits);
  change_back(x, w, c, b, head, panel, d_logits, d_slopes);
  gather(w.key_strips.data(), strip_stride(c), x.dim, d_logits, w.runs.data(), int(w.runs.size()),
         w.dq.data() + at * LANES * x.dim);
}

// Where the gradients of each slot of a chunk are added up.
void find_sums(const Pass& x, Scratch& w, const Chunk& c, const std::vector<Sums>& sums) {
  w.dk.resize(c.size), w.dv.resize(c.size);
  for (const Span& span : c.spans) {
    const Sums& s = sums[x.call.schedule.source(x.part, span.source).pool];
    for (int i = span.begin; i < span.end; i++) {
      w.dk[i] = s.dk + (c.slots[i] - s.first) * s.k_stride;
      w.dv[i] = s.dv + (c.slots[i] - s.first) * s.v_stride;
    }
  }
}

void prefetch_sums(const Pass& x, const Scratch& w, int begin, int end) {
  for (int i = begin; i < end; i++)
    prefetch_row(false, w.dk[i], 0, x.dim), prefetch_row(false, w.dv[i], 0, x.value_dim);
}

// One group of slots adds to the sums of its rows `out`, of `size` components. Sources of one pool may meet in a group:
// rows that are the same, or that are not of whole vectors, are added up one by one.
void add_group(int keys, const Weighted* panels, int count, int size, int ld, float* const* out,
               std::vector<float>& apart) {
  bool direct = size == ld;
  for (int i = 1; i < keys && direct; i++)
    for (int j = 0; j < i; j++) direct &= out[i] != out[j];
  if (direct) return scatter(keys, panels, count, ld, ld, out);
  float* rows[RANK];
  apart.assign(size_t(RANK) * ld, 0.0f);
  for (int i = 0; i < keys; i++) rows[i] = apart.data() + i * ld;
  scatter(keys, panels, count, ld, ld, rows);
  for (int i = 0; i < keys; i++)
    for (int d = 0; d < size; d++) out[i][d] += rows[i][d];
}

// Panels first … first + count − 1 of the head whose panel 0 is `at` add to the gradients of keys and values.
void several_panels(const Pass& x, Scratch& w, const Chunk& c, size_t at, int first, int count) {
  for (int g = 0; g < c.groups(); g++) {
    const int64_t key = int64_t(g) * RANK;
    Weighted values[TOGETHER], keys[TOGETHER];
    int some = 0;
    for (int slot = 0; slot < count; slot++) {
      const int panel = first + slot;
      if (c.of(panel, g) == NONE) continue;
      const int lanes = w.tile.lanes(panel);
      values[some] = {w.weights[slot].data() + key * LANES, w.d_rows.data() + (at + panel) * LANES * x.value_ld, lanes};
      keys[some++] = {w.d_logits[slot].data() + key * LANES, w.q_rows.data() + (at + panel) * LANES * x.ld, lanes};
    }
    if (g + 1 < c.groups()) prefetch_sums(x, w, int(key) + RANK, int(key) + RANK + c.group_size(g + 1));
    if (!some) continue;
    add_group(c.group_size(g), values, some, x.value_dim, x.value_ld, w.dv.data() + key, w.apart);
    add_group(c.group_size(g), keys, some, x.dim, x.ld, w.dk.data() + key, w.apart);
  }
}

void write_queries(const Pass& x, Scratch& w, int64_t b, int64_t kv, bool first) {
  const int panels = w.tile.panels, group = w.group;
  const float factor = x.call.scale * LN2;  // keys were in units of log 2
  w.out.resize(size_t(LANES) * x.ld);
  for (int g = 0; g < group; g++)
    for (int p = 0; p < panels; p++) {
      transpose(w.dq.data() + (size_t(g) * panels + p) * LANES * x.dim, LANES, x.dim, LANES, w.out.data(), x.ld);
      for (int i = 0; i < w.tile.lanes(p); i++) {
        float* to =
            x.call.dq +
            x.call.row(b, w.tile.queries[p * LANES + i], kv * x.call.group() + w.first_of_group + g) * x.dim;
        const float* row = w.out.data() + size_t(i) * x.ld;
        int d = 0;
        for (; d + WIDTH <= x.dim; d += WIDTH) store(to + d, factor * load(row + d) + (first ? Floats{} : load(to + d)));
        for (; d < x.dim; d++) to[d] = factor * row[d] + (first ? 0.0f : to[d]);
      }
    }
}

// The keys and values of one chunk, with the queries of one key head.
void one_chunk(const Pass& x, Scratch& w, const Chunk& c, int64_t b, int64_t kv, bool another, float* d_slopes) {
  const Call& call = x.call;
  const int panels = w.tile.panels, group = w.group;
  pack_rows(call, x.part, c, b, kv, false, LOG2E, w.keys);
  pack_strips(c, w.keys, x.dim, w.key_strips);
  pack_rows(call, x.part, c, b, kv, true, 1.0f, w.values);
  for (int g = 0; g < group; g++)
    for (int first = 0; first < panels; first += TOGETHER) {
      const int count = std::min(TOGETHER, panels - first);
      for (int slot = 0; slot < count; slot++) {
        const int panel = first + slot;
        if (another) {  // while this head computes, the next one's operands arrive
          const int share = g * panels + panel, shares = group * panels;
          prefetch_keys(call, x.part, c, b, kv + 1, c.size * share / shares, c.size * (share + 1) / shares);
        }
        one_panel(x, w, c, b, kv * call.group() + w.first_of_group + g, size_t(g) * panels + panel, panel, slot, d_slopes);
      }
      several_panels(x, w, c, size_t(g) * panels, first, count);
    }
}

// Key heads first … last − 1, whose sums start at `sums`, and the queries of the tile that the scratch holds.
void one_tile(const Pass& x, Scratch& w, int64_t b, int64_t first, int64_t last, const std::vector<Sums>* sums,
              int64_t sums_stride, float* d_slopes) {
  const Call& call = x.call;
  const int64_t bytes = 4 * (2 * x.dim + x.value_dim + 2 * LANES * std::min(TOGETHER, w.tile.panels));
  const int limit = w.tile.even(int(std::clamp<int64_t>(CHUNK_BYTES / bytes, 48, 256)));
  for (int slot = 0; slot < TOGETHER; slot++)
    w.weights[slot].resize(size_t(limit) * LANES), w.d_logits[slot].resize(size_t(limit) * LANES);
  w.slope.resize(call.softcap != 0 ? size_t(limit) * LANES : 0);
  for (bool begun = false;; begun = true) {
    int chunks = 0;
    while (chunks < MOST_CHUNKS && w.tile.next(w.chunks[chunks], limit)) chunks++;
    if (!chunks && begun) return;
    for (int64_t kv = first; kv < last; kv++) {
      read_queries(x, w, b, kv);
      for (int i = 0; i < chunks; i++) {
        find_sums(x, w, w.chunks[i], sums[(kv - first) * sums_stride]);
        one_chunk(x, w, w.chunks[i], b, kv, kv + 1 < last, d_slopes);
      }
      write_queries(x, w, b, kv, x.first && !begun);
    }
    if (chunks < MOST_CHUNKS) return;
  }
}

}  // namespace
}  // namespace patterndsl
