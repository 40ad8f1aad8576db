// The forward pass: a task is a tile of queries of one sequence, with some of the key heads.
#include "logits.h"

namespace patterndsl {
namespace {

constexpr int MOST_CHUNKS = 16;     // whose masks a task holds at a time
constexpr int CHUNK_BYTES = 131072;  // of keys and values of one head: a fair part of a second-level cache

// Some queries of one head, those from `begin` on: the queries themselves, scaled, side by side, and what their groups
// have given them so far: top and total [queries], sums [queries][…].
struct Range {
  int32_t begin, end;
  std::vector<float> queries, top, total, sums;
};

struct Scratch {
  Tile tile;
  std::vector<Chunk> chunks = std::vector<Chunk>(MOST_CHUNKS);
  std::vector<Run> runs;
  Range range;  // of a part with groups
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

// The normalised output and log-sum-exp of one query; a later part joins what earlier ones have written.
inline void write_row(const Call& call, int64_t at, float top, float total, const float* row, bool first) {
  const int size = int(call.value_dim);
  float* out = call.out + at * size;
  float lse = total == 0 ? MINUS_INFINITY : (top + std::log2(total)) * LN2;
  float ours = total == 0 ? 0.0f : 1.0f / total, theirs = 0;
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

// The same of a panel.
void finish(const Call& call, const Tile& tile, int64_t b, int64_t head, int panel, bool first, const float* top,
            const float* total, const float* sums, std::vector<float>& rows) {
  const int size = int(call.value_dim), ld = round_up(size, 8);
  rows.resize(size_t(LANES) * ld);
  transpose(sums, LANES, size, LANES, rows.data(), ld);
  for (int i = 0; i < tile.lanes(panel); i++)
    write_row(call, call.row(b, tile.queries[panel * LANES + i], head), top[i], total[i],
              rows.data() + size_t(i) * ld, first);
}

// The softmax of a tile's queries: of the query heads first_of_group … first_of_group + group − 1 of each key head from
// `first_head` to `last_head`, in the scratch.
void sum_tile(const Call& call, const Part& part, Scratch& w, int64_t b, int64_t first_head, int64_t last_head,
              int first_of_group, int group) {
  Tile& tile = w.tile;
  const int panels = tile.panels, size = int(call.head_dim), values = int(call.value_dim);
  const int limit = tile.even(chunk_limit(call));
  const size_t states = size_t(last_head - first_head) * group * panels;
  auto head_of = [&](int64_t kv, int g) { return kv * call.group() + first_of_group + g; };
  w.top.assign(states * LANES, MINUS_INFINITY);
  w.total.assign(states * LANES, 0.0f);
  w.sums.assign(states * LANES * values, 0.0f);
  w.queries.resize(size_t(group) * panels * size * LANES);
  const int64_t ld = round_up(size, 8);
  w.rows.resize(size_t(LANES) * ld);
  w.scores.resize(size_t(limit) * LANES);
  auto pack = [&](int64_t kv, int g, int p, float* columns) {
    const int32_t* queries = tile.queries.data() + p * LANES;
    if (part.groups)
      pack_panel(
          false, w.range.queries.data(), tile.lanes(p), tile.queries.size() - p * LANES, size, ld, 1.0f,
          [&](int i) { return int64_t(queries[i] - w.range.begin) * size; }, w.rows.data(), columns);
    else
      pack_panel(
          call.bfloat16, call.q, tile.lanes(p), tile.lanes(p), size, ld, call.scale * LOG2E,
          [&](int i) { return call.row(b, queries[i], head_of(kv, g)) * size; }, w.rows.data(), columns);
  };
  for (;;) {
    int chunks = 0;
    while (chunks < MOST_CHUNKS && tile.next(w.chunks[chunks], limit)) chunks++;
    if (!chunks) break;
    for (int64_t kv = first_head; kv < last_head; kv++) {
      for (int g = 0; g < group; g++)
        for (int p = 0; p < panels; p++)
          pack(kv, g, p, w.queries.data() + (size_t(g) * panels + p) * size * LANES);
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
                             call.row(b, tile.queries[p * LANES + l], head_of(kv + 1, g)) * size, size);
            }
            for (int l = 0; part.groups && i == 0 && l < tile.lanes(p); l++)
              prefetch_row(false, w.range.sums.data(), int64_t(tile.queries[p * LANES + l] - w.range.begin) * values,
                           values);
            logits(call, part, tile, c, b, head_of(kv, g), p, w.keys.data(),
                   w.queries.data() + (size_t(g) * panels + p) * size * LANES, w.scores.data(), nullptr, w.runs);
            if (!w.runs.empty())
              absorb(w.runs, w.values.data(), strip_stride(c), values, w.scores.data(), w.top.data() + at * LANES,
                     w.total.data() + at * LANES, w.sums.data() + at * LANES * values);
          }
      }
    }
    if (chunks < MOST_CHUNKS) break;
  }
}

void task(const Call& call, const Part& part, int row, int64_t b, int64_t first_head, int64_t last_head, bool first) {
  static thread_local Scratch own;
  Scratch& w = own;  // its address is looked up once
  Tile& tile = w.tile;
  tile.begin(call, part, row, b);
  const int group = call.group(), panels = tile.panels, values = int(call.value_dim);
  sum_tile(call, part, w, b, first_head, last_head, 0, group);
  for (int64_t head = first_head * group; head < last_head * group; head++)
    for (int p = 0; p < panels; p++) {
      const size_t at = (head - first_head * group) * panels + p;
      finish(call, tile, b, head, p, first, w.top.data() + at * LANES, w.total.data() + at * LANES,
             w.sums.data() + at * LANES * values, w.rows);
    }
}

// A panel's share of the softmax joins that of its queries.
void join(const Tile& tile, int panel, int size, const float* top, const float* total, const float* sums,
          std::vector<float>& rows, Range& range) {
  const int ld = round_up(size, 8), lanes = tile.lanes(panel);
  const int32_t* queries = tile.queries.data() + panel * LANES;
  rows.resize(size_t(LANES) * ld);
  transpose(sums, LANES, size, LANES, rows.data(), ld);
  float ours[LANES], theirs[LANES];
  for (int j = 0; j < LANES; j += WIDTH) {
    float before[WIDTH], sum[WIDTH];
    for (int i = 0; i < WIDTH; i++) {
      const bool real = j + i < lanes;
      before[i] = real ? range.top[queries[j + i] - range.begin] : MINUS_INFINITY;
      sum[i] = real ? range.total[queries[j + i] - range.begin] : 0.0f;
    }
    const Floats old = load(before), mine = load(top + j), both = larger(old, mine);
    const Floats finite = select(both == MINUS_INFINITY, all(0.0f), both);
    const Floats shrink = exp2(old - finite), share = exp2(mine - finite);
    store(theirs + j, shrink), store(ours + j, share), store(before, both);
    store(sum, shrink * load(sum) + share * load(total + j));
    for (int i = 0; i < WIDTH && j + i < lanes; i++) {
      range.top[queries[j + i] - range.begin] = before[i];
      range.total[queries[j + i] - range.begin] = sum[i];
    }
  }
  for (int i = 0; i < lanes; i++) {
    float* to = range.sums.data() + int64_t(queries[i] - range.begin) * size;
    const float* row = rows.data() + size_t(i) * ld;
    int d = 0;
    for (; d + WIDTH <= size; d += WIDTH) store(to + d, theirs[i] * load(to + d) + ours[i] * load(row + d));
    for (; d < size; d++) to[d] = theirs[i] * to[d] + ours[i] * row[d];
  }
}

// One head's queries of a range meet the groups that they are in, one after the other.
void range_task(const Call& call, const Part& part, const Lane& lane, int64_t b, int64_t head, int32_t begin,
                int32_t end, bool first_part) {
  static thread_local Scratch own;
  Scratch& w = own;
  Range& range = w.range;
  const int values = int(call.value_dim), size = int(call.head_dim);
  range.begin = begin, range.end = end;
  range.top.assign(end - begin, MINUS_INFINITY);
  range.total.assign(end - begin, 0.0f);
  range.sums.assign(size_t(end - begin) * values, 0.0f);
  range.queries.resize(size_t(end - begin) * size);
  for (int32_t i = begin; i < end; i++) {
    if (i + AHEAD < end) prefetch_row(call.bfloat16, call.q, call.row(b, i + AHEAD, head) * size, size);
    read_row(call.bfloat16, call.q, call.row(b, i, head) * size, size, call.scale * LOG2E,
             range.queries.data() + int64_t(i - begin) * size);
  }
  const int64_t kv = head / call.group();
  each_tile(call, part, lane, begin, end, [&](int group, int32_t first, int32_t last) {
    w.tile.begin_group(call, part, b, head, lane, group, first, last);
    sum_tile(call, part, w, b, kv, kv + 1, int(head % call.group()), 1);
    for (int p = 0; p < w.tile.panels; p++)
      join(w.tile, p, values, w.top.data() + size_t(p) * LANES, w.total.data() + size_t(p) * LANES,
           w.sums.data() + size_t(p) * LANES * values, w.rows, range);
  });
  for (int32_t i = 0; i < end - begin; i++)
    write_row(call, call.row(b, begin + i, head), range.top[i], range.total[i], range.sums.data() + size_t(i) * values,
              first_part);
}

void grouped_part(const Call& call, const Part& part, bool first, Workers& workers) {
  const std::vector<Lane> lanes = find_lanes(call, part, workers);
  const int64_t cuts = cuts_of_queries(call, int64_t(lanes.size()), workers);
  auto body = [&](int64_t t) {
    const int64_t cut = t / int64_t(lanes.size()), i = t % int64_t(lanes.size());
    range_task(call, part, lanes[i], i / call.heads, i % call.heads, int32_t(call.queries * cut / cuts),
               int32_t(call.queries * (cut + 1) / cuts), first);
  };
  workers.each(int64_t(lanes.size()) * cuts, body);
}

}  // namespace

void forward(const Call& call, Workers& workers) {
  const int64_t rows_of_output = call.batch * call.queries * call.heads;
  const int32_t parts = call.schedule.part_count();
  const bool every = parts > 0 && (call.schedule.part(0).groups ||
                                   call.schedule.part(0).rows == tiles_of(call, call.schedule.part(0)));
  if (!every) {  // queries of no tile keep nothing
    std::fill_n(call.out, rows_of_output * call.value_dim, 0.0f);
    std::fill_n(call.lse, rows_of_output, MINUS_INFINITY);
  }
  for (int i = 0; i < parts; i++) {
    const Part& part = call.schedule.part(i);
    if (part.groups) {
      grouped_part(call, part, i == 0, workers);
      continue;
    }
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
