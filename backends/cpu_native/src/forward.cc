// The forward pass: a task is a tile of queries of one sequence, with some of the key heads.
#include "logits.h"

namespace patterndsl {
namespace {

constexpr int MOST_CHUNKS = 16;     // whose masks a task holds at a time
constexpr int CHUNK_BYTES = 131072;  // of keys and values of one head: a fair part of a second-level cache

struct Scratch {
  Tile tile;
  std::vector<Chunk> chunks = std::vector<Chunk>(MOST_CHUNKS);
  std::vector<Run> runs;
  std::vector<float> rows, keys, value_rows, values, queries, scores, top, total, sums;
};

int chunk_limit(const Call& call) {
  int64_t fits = CHUNK_BYTES / (4 * (call.head_dim + call.value_dim));
  return int(std::clamp<int64_t>(fits, 64, 256));
}

// One chunk joins the softmax of a panel: top [LANES], total [LANES], sums [value_dim][LANES].
void absorb(const std::vector<Run>& runs, const float* strips, int64_t stride, int value_dim, float* scores,
            float* top, float* total, float* sums) {
  Floats finite[WIDE], sum[WIDE], shrink[WIDE];
  bool same = true;
  for (int j = 0; j < WIDE; j++) finite[j] = load(top + j * WIDTH);
  Floats before[WIDE];
  for (int j = 0; j < WIDE; j++) before[j] = finite[j];
  for (const Run& run : runs)
    for (const float* s = scores + run.begin * LANES; s < scores + run.end * LANES; s += LANES)
      for (int j = 0; j < WIDE; j++) finite[j] = larger(load(s + j * WIDTH), finite[j]);
  for (int j = 0; j < WIDE; j++) {
    store(top + j * WIDTH, finite[j]);
    finite[j] = select(finite[j] == MINUS_INFINITY, all(0.0f), finite[j]);
    shrink[j] = exp2(before[j] - finite[j]);
    sum[j] = load(total + j * WIDTH) * shrink[j];
    for (int i = 0; i < WIDTH; i++) same &= shrink[j][i] == 1.0f;
  }
  for (const Run& run : runs)
    for (float* s = scores + run.begin * LANES; s < scores + run.end * LANES; s += LANES)
      for (int j = 0; j < WIDE; j++) {
        Floats p = exp2(load(s + j * WIDTH) - finite[j]);
        sum[j] += p;
        store(s + j * WIDTH, p);
      }
  for (int j = 0; j < WIDE; j++) store(total + j * WIDTH, sum[j]);
  if (!same)
    for (float* o = sums; o < sums + value_dim * LANES; o += LANES)
      for (int j = 0; j < WIDE; j++) store(o + j * WIDTH, load(o + j * WIDTH) * shrink[j]);
  gather(strips, stride, value_dim, scores, runs.data(), int(runs.size()), sums);
}

// The normalised output and log-sum-exp of a panel; a later part joins what earlier ones have written.
void finish(const Call& call, const Tile& tile, int64_t b, int64_t head, int panel, bool first, const float* top,
            const float* total, const float* sums, std::vector<float>& rows) {
  const int size = int(call.value_dim), ld = round_up(size, 8);
  rows.resize(size_t(LANES) * ld);
  transpose(sums, LANES, size, LANES, rows.data(), ld);
  for (int i = 0; i < tile.lanes(panel); i++) {
    const int64_t at = call.row(b, tile.queries[panel * LANES + i], head);
    float* out = call.out + at * size;
    float lse = total[i] == 0 ? MINUS_INFINITY : (top[i] + std::log2(total[i])) * LN2;
    float ours = total[i] == 0 ? 0.0f : 1.0f / total[i], theirs = 0;
    const float* row = rows.data() + size_t(i) * ld;
    if (!first) {
      const float other = call.lse[at], both = std::max(lse, other);
      if (both != MINUS_INFINITY) {
        const float sum = both + std::log(std::exp(lse - both) + std::exp(other - both));
        ours *= std::exp(lse - sum), theirs = std::exp(other - sum), lse = sum;
      }
      for (int d = 0; d < size; d++) out[d] = theirs * out[d] + ours * row[d];
    } else {
      int d = 0;
      for (; d + WIDTH <= size; d += WIDTH) store(out + d, ours * load(row + d));
      for (; d < size; d++) out[d] = ours * row[d];
    }
    call.lse[at] = lse;
  }
}

void task(const Call& call, const Part& part, int row, int64_t b, int64_t first_head, int64_t last_head, bool first) {
  static thread_local Scratch own;
  Scratch& w = own;  // its address is looked up once
  Tile& tile = w.tile;
  tile.begin(call, part, row, b);
  const int group = call.group(), panels = tile.panels, size = int(call.head_dim), values = int(call.value_dim);
  const int limit = tile.even(chunk_limit(call));
  const size_t states = size_t(last_head - first_head) * group * panels;
  w.top.assign(states * LANES, MINUS_INFINITY);
  w.total.assign(states * LANES, 0.0f);
  w.sums.assign(states * LANES * values, 0.0f);
  w.queries.resize(size_t(group) * panels * size * LANES);
  const int64_t ld = round_up(size, 8);
  w.rows.resize(size_t(LANES) * ld);
  w.scores.resize(size_t(limit) * LANES);
  for (;;) {
    int chunks = 0;
    while (chunks < MOST_CHUNKS && tile.next(w.chunks[chunks], limit)) chunks++;
    if (!chunks) break;
    for (int64_t kv = first_head; kv < last_head; kv++) {
      for (int g = 0; g < group; g++)
        for (int p = 0; p < panels; p++)
          pack_panel(
              call.bfloat16, call.q, tile.lanes(p), size, ld, call.scale * LOG2E,
              [&](int i) { return call.row(b, tile.queries[p * LANES + i], kv * group + g) * size; }, w.rows.data(),
              w.queries.data() + (size_t(g) * panels + p) * size * LANES);
      for (int i = 0; i < chunks; i++) {
        const Chunk& c = w.chunks[i];
        pack_rows(call, part, c, b, kv, false, 1.0f, w.keys);
        pack_rows(call, part, c, b, kv, true, 1.0f, w.value_rows);
        pack_strips(c, w.value_rows, values, w.values);
        for (int g = 0; g < group; g++)
          for (int p = 0; p < panels; p++) {
            const size_t at = ((kv - first_head) * group + g) * panels + p;
            if (kv + 1 < last_head) {  // while this head computes, the next one's operands arrive
              const int share = g * panels + p, shares = group * panels;
              prefetch_keys(call, part, c, b, kv + 1, c.size * share / shares, c.size * (share + 1) / shares);
              for (int l = 0; i == 0 && l < tile.lanes(p); l++)
                prefetch_row(call.bfloat16, call.q,
                             call.row(b, tile.queries[p * LANES + l], (kv + 1) * group + g) * size, size);
            }
            logits(call, part, tile, c, b, kv * group + g, p, w.keys.data(),
                   w.queries.data() + (size_t(g) * panels + p) * size * LANES, w.scores.data(), nullptr, w.runs);
            if (!w.runs.empty())
              absorb(w.runs, w.values.data(), strip_stride(c), values, w.scores.data(), w.top.data() + at * LANES,
                     w.total.data() + at * LANES, w.sums.data() + at * LANES * values);
          }
      }
    }
    if (chunks < MOST_CHUNKS) break;
  }
  for (int64_t head = first_head * group; head < last_head * group; head++)
    for (int p = 0; p < panels; p++) {
      const size_t at = (head - first_head * group) * panels + p;
      finish(call, tile, b, head, p, first, w.top.data() + at * LANES, w.total.data() + at * LANES,
             w.sums.data() + at * LANES * values, w.rows);
    }
}

}  // namespace

void forward(const Call& call, Workers& workers) {
  const int64_t rows_of_output = call.batch * call.queries * call.heads;
  const int32_t parts = call.schedule.part_count();
  const bool every = parts > 0 && call.schedule.part(0).rows == tiles_of(call, call.schedule.part(0));
  if (!every) {  // queries of no tile keep nothing
    std::fill_n(call.out, rows_of_output * call.value_dim, 0.0f);
    std::fill_n(call.lse, rows_of_output, MINUS_INFINITY);
  }
  for (int i = 0; i < parts; i++) {
    const Part& part = call.schedule.part(i);
    const int64_t tiles = call.batch * part.rows;
    // Few tiles, as in decoding, are shared out head by head; the mask is then made for each head.
    const int64_t cuts =
        tiles ? std::clamp<int64_t>((4 * workers.count() + tiles - 1) / tiles, 1, call.key_heads) : 1;
    auto body = [&](int64_t t) {
      const int64_t cut = t % cuts, row = t / cuts % part.rows, b = t / cuts / part.rows;
      task(call, part, int(row), b, cut * call.key_heads / cuts, (cut + 1) * call.key_heads / cuts,
           i == 0);
    };
    workers.each(tiles * cuts, body);
  }
}

}  // namespace patterndsl
