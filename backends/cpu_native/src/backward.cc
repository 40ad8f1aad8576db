// The backward pass: a task is a run of query tiles of one sequence and key head; it recomputes the logits, writes the
// gradients of its queries, and adds up those of keys and values for itself. Sums are then taken in the order of the
// tasks, so that the gradients are the same every time.
#include <memory>

#include "logits.h"

namespace patterndsl {
namespace {

constexpr int CHUNK_BYTES = 163840;              // of keys, values and their gradients
constexpr int64_t MOST_PRIVATE = int64_t(1) << 28;  // floats in all tasks' own sums
constexpr int TOGETHER = 4;                       // panels whose sums over queries are taken at once
constexpr int64_t BLOCK = 1 << 16;                // floats or slots that are cleared or summed at a time

// The gradients of keys and values of one pool, for one key head.
struct Sums {
  float *dk, *dv;
  int64_t k_stride, v_stride, first;  // the slot of row 0
};

struct Scratch {
  Tile tile;
  Chunk chunk;
  std::vector<Run> runs;
  // For each head of the group and panel: queries and output gradients, by rows and transposed, with what goes with
  // them, and the gradient of the queries, transposed.
  std::vector<float> q_rows, q_columns, d_rows, d_columns, dq, lse, delta;
  std::vector<float> keys, key_strips, values, dk, dv, slope, out, weights[TOGETHER], d_logits[TOGETHER];
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
  const int panels = w.tile.panels, group = call.group();
  const size_t all_panels = size_t(group) * panels;
  w.q_rows.resize(all_panels * LANES * x.ld), w.q_columns.resize(all_panels * LANES * x.dim);
  w.d_rows.resize(all_panels * LANES * x.value_ld), w.d_columns.resize(all_panels * LANES * x.value_dim);
  w.dq.assign(all_panels * LANES * x.dim, 0.0f);
  w.lse.assign(all_panels * LANES, 0.0f), w.delta.assign(all_panels * LANES, 0.0f);
  for (int g = 0; g < group; g++)
    for (int p = 0; p < panels; p++) {
      const size_t at = size_t(g) * panels + p;
      auto row = [&](int i) { return call.row(b, w.tile.queries[p * LANES + i], kv * group + g); };
      pack_panel(
          call.bfloat16, call.q, w.tile.lanes(p), x.dim, x.ld, call.scale * LOG2E, [&](int i) { return row(i) * x.dim; },
          w.q_rows.data() + at * LANES * x.ld, w.q_columns.data() + at * LANES * x.dim);
      float* d_rows = w.d_rows.data() + at * LANES * x.value_ld;
      pack_panel(
          false, call.d_out, w.tile.lanes(p), x.value_dim, x.value_ld, 1.0f,
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
void change_back(const Pass& x, Scratch& w, int64_t b, int64_t head, int panel, float* d_logits, float* d_slopes) {
  const Call& call = x.call;
  const Chunk& c = w.chunk;
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
void one_panel(const Pass& x, Scratch& w, int64_t b, int64_t head, size_t at, int panel, int slot, float* d_slopes) {
  const Call& call = x.call;
  const Chunk& c = w.chunk;
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
  change_back(x, w, b, head, panel, d_logits, d_slopes);
  gather(w.key_strips.data(), strip_stride(c), x.dim, d_logits, w.runs.data(), int(w.runs.size()),
         w.dq.data() + at * LANES * x.dim);
}

// Panels first … first + count − 1 of the head whose panel 0 is `at` add to the gradients of keys and values.
void several_panels(const Pass& x, Scratch& w, size_t at, int first, int count) {
  const Chunk& c = w.chunk;
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
    if (!some) continue;
    scatter(c.group_size(g), values, some, x.value_ld, x.value_ld, w.dv.data() + key * x.value_ld, x.value_ld);
    scatter(c.group_size(g), keys, some, x.ld, x.ld, w.dk.data() + key * x.ld, x.ld);
  }
}

void add(float* to, const float* x, int size, float factor) {
  int i = 0;
  for (; i + WIDTH <= size; i += WIDTH) store(to + i, load(to + i) + factor * load(x + i));
  for (; i < size; i++) to[i] += factor * x[i];
}

// The sums to which slots begin … end − 1 of the chunk are added when it is done come nearer.
void prefetch_sums(const Pass& x, const Scratch& w, const std::vector<Sums>& sums, int begin, int end) {
  for (const Span& span : w.chunk.spans) {
    const Sums& s = sums[x.call.schedule.source(x.part, span.source).pool];
    for (int i = std::max(begin, span.begin); i < std::min(end, span.end); i++) {
      prefetch_row(false, s.dk, (w.chunk.slots[i] - s.first) * s.k_stride, x.dim);
      prefetch_row(false, s.dv, (w.chunk.slots[i] - s.first) * s.v_stride, x.value_dim);
    }
  }
}

void add_rows(const Pass& x, const Scratch& w, const std::vector<Sums>& sums) {
  for (const Span& span : w.chunk.spans) {
    const Sums& s = sums[x.call.schedule.source(x.part, span.source).pool];
    for (int i = span.begin; i < span.end; i++) {
      float* dk = s.dk + (w.chunk.slots[i] - s.first) * s.k_stride;
      float* dv = s.dv + (w.chunk.slots[i] - s.first) * s.v_stride;
      add(dk, w.dk.data() + size_t(i) * x.ld, x.dim, LN2);  // q was in units of log 2
      add(dv, w.dv.data() + size_t(i) * x.value_ld, x.value_dim, 1.0f);
    }
  }
}

void write_queries(const Pass& x, Scratch& w, int64_t b, int64_t kv) {
  const int panels = w.tile.panels, group = x.call.group();
  w.out.resize(size_t(LANES) * x.ld);
  for (int g = 0; g < group; g++)
    for (int p = 0; p < panels; p++) {
      transpose(w.dq.data() + (size_t(g) * panels + p) * LANES * x.dim, LANES, x.dim, LANES, w.out.data(), x.ld);
      for (int i = 0; i < w.tile.lanes(p); i++) {
        float* to = x.call.dq + x.call.row(b, w.tile.queries[p * LANES + i], kv * group + g) * x.dim;
        if (x.first) std::fill_n(to, x.dim, 0.0f);
        add(to, w.out.data() + size_t(i) * x.ld, x.dim, x.call.scale);
      }
    }
}

void one_tile(const Pass& x, int row, int64_t b, int64_t kv, const std::vector<Sums>& sums, float* d_slopes) {
  static thread_local Scratch w;
  const Call& call = x.call;
  w.tile.begin(call, x.part, row, b);
  read_queries(x, w, b, kv);
  const int64_t fits = CHUNK_BYTES / (4 * (3 * x.dim + 2 * x.value_dim));
  const int limit = w.tile.even(int(std::clamp<int64_t>(fits, 48, 256)));
  for (int slot = 0; slot < TOGETHER; slot++)
    w.weights[slot].resize(size_t(limit) * LANES), w.d_logits[slot].resize(size_t(limit) * LANES);
  w.slope.resize(call.softcap != 0 ? size_t(limit) * LANES : 0);
  const int panels = w.tile.panels, group = call.group();
  while (w.tile.next(w.chunk, limit)) {
    pack_rows(call, x.part, w.chunk, b, kv, false, x.dim, w.keys);
    pack_strips(w.chunk, w.keys, x.dim, x.dim, w.key_strips);
    pack_rows(call, x.part, w.chunk, b, kv, true, x.value_dim, w.values);
    w.dk.assign(size_t(w.chunk.size) * x.ld, 0.0f), w.dv.assign(size_t(w.chunk.size) * x.value_ld, 0.0f);
    for (int g = 0; g < group; g++)
      for (int first = 0; first < panels; first += TOGETHER) {
        const int count = std::min(TOGETHER, panels - first);
        if (g == 0)
          prefetch_sums(x, w, sums, w.chunk.size * first / panels, w.chunk.size * (first + count) / panels);
        for (int slot = 0; slot < count; slot++)
          one_panel(x, w, b, kv * group + g, size_t(g) * panels + first + slot, first + slot, slot, d_slopes);
        several_panels(x, w, size_t(g) * panels, first, count);
      }
    add_rows(x, w, sums);
  }
  write_queries(x, w, b, kv);
}

// Where the rows of a part's table are cut, so that each of `cuts` has about as many slots to visit.
std::vector<int> even_cuts(const Call& call, const Part& part, int cuts) {
  const int32_t* data = call.schedule.data;
  std::vector<int64_t> before(part.rows + 1, 0);
  for (int r = 0, i = 0; r < part.rows; r++) {
    before[r + 1] = before[r] + 1;
    for (; i < data[part.ends + r]; i++) before[r + 1] += data[part.runs + 3 * int64_t(i) + 2];
  }
  std::vector<int> found{0};
  for (int i = 1; i < cuts; i++) {
    const int64_t wanted = before.back() / cuts * i;
    found.push_back(int(std::lower_bound(before.begin(), before.end(), wanted) - before.begin()));
  }
  found.push_back(part.rows);
  return found;
}

// First and last-plus-one slot of a pool that rows begin … end − 1 visit.
std::pair<int64_t, int64_t> visited(const Call& call, const Part& part, int pool, int begin, int end) {
  const int32_t* data = call.schedule.data;
  int64_t low = call.pools[pool].slots, high = 0;
  for (int i = begin ? data[part.ends + begin - 1] : 0; i < (end ? data[part.ends + end - 1] : 0); i++) {
    const int32_t* run = data + part.runs + 3 * int64_t(i);
    const Source& source = call.schedule.source(part, run[0] >> 1);
    if (source.pool != pool) continue;
    if (source.tokens && part.tokens) return {0, call.pools[pool].slots};
    low = std::min<int64_t>(low, run[1]), high = std::max<int64_t>(high, int64_t(run[1]) + run[2]);
  }
  high = std::min(high, call.pools[pool].slots);
  return {std::min(low, high), high};
}

class Parallel {
 public:
  Parallel(const Pass& pass, Workers& workers) : x_(pass), workers_(workers) {
    const Call& call = pass.call;
    // A bias that heads or sequences share gets its gradient from one task: that of its queries.
    shared_bias_ = call.schedule.has_bias() && (call.bias_batch < call.batch || call.bias_heads < call.heads);
    pairs_ = call.batch * call.key_heads;
    const int64_t units = shared_bias_ ? 1 : pairs_, wanted = 2 * workers.count();
    int cuts = units >= wanted ? 1 : int(std::min<int64_t>((wanted + units - 1) / units, std::max(pass.part.rows, 1)));
    for (;; cuts = (cuts + 1) / 2) {
      cuts_ = even_cuts(call, pass.part, cuts);
      if (cuts == 1 || reserve(cuts) <= MOST_PRIVATE) break;
    }
    if (cuts == 1) direct();
  }

  void run(float* d_slopes) {
    const Call& call = x_.call;
    const int64_t cuts = int64_t(cuts_.size()) - 1, tasks = shared_bias_ ? cuts : cuts * pairs_;
    std::vector<float> slopes(size_t(tasks) * call.heads, 0.0f);
    auto body = [&](int64_t task) {
      const int64_t cut = task % cuts, begin = shared_bias_ ? 0 : task / cuts, end = shared_bias_ ? pairs_ : begin + 1;
      for (int64_t pair = begin; pair < end; pair++)
        for (int row = cuts_[cut]; row < cuts_[cut + 1]; row++)
          one_tile(x_, row, pair / call.key_heads, pair % call.key_heads, sums_[pair * cuts + cut],
                   slopes.data() + task * call.heads);
    };
    workers_.each(tasks, body);
    if (call.slopes)
      for (int64_t task = 0; task < tasks; task++)
        for (int64_t h = 0; h < call.heads; h++) d_slopes[h] += slopes[task * call.heads + h];
    if (cuts > 1) collect();
  }

 private:
  // Where each pair of sequence and key head, and each cut, adds up; returns the floats that this takes.
  int64_t reserve(int cuts) {
    const Call& call = x_.call;
    const int pools = int(call.pools.size());
    ranges_.assign(size_t(cuts) * pools, {});
    int64_t size = 0;
    for (int cut = 0; cut < cuts; cut++)
      for (int i = 0; i < pools; i++) {
        ranges_[cut * pools + i] = visited(call, x_.part, i, cuts_[cut], cuts_[cut + 1]);
        size += (ranges_[cut * pools + i].second - ranges_[cut * pools + i].first) * (x_.dim + x_.value_dim);
      }
    if (size * pairs_ > MOST_PRIVATE) return size * pairs_;
    private_.reset(new float[size_t(size * pairs_)]());
    float* at = private_.get();
    sums_.assign(size_t(pairs_) * cuts, std::vector<Sums>(pools));
    for (int64_t j = 0; j < pairs_ * cuts; j++)
      for (int i = 0; i < pools; i++) {
        const auto [low, high] = ranges_[size_t(j % cuts) * pools + i];
        sums_[j][i] = {at, at + (high - low) * x_.dim, x_.dim, x_.value_dim, low};
        at += (high - low) * (x_.dim + x_.value_dim);
      }
    return size * pairs_;
  }

  void direct() {
    const Call& call = x_.call;
    private_.reset();
    sums_.assign(size_t(pairs_), {});
    for (int64_t pair = 0; pair < pairs_; pair++)
      for (const Pool& pool : call.pools) {
        const int64_t row = pair / call.key_heads * pool.slots * call.key_heads + pair % call.key_heads;
        sums_[pair].push_back({pool.dk + row * x_.dim, pool.dv + row * x_.value_dim, call.key_heads * x_.dim,
                               call.key_heads * x_.value_dim, 0});
      }
  }

  void collect() {
    const Call& call = x_.call;
    const int64_t cuts = int64_t(cuts_.size()) - 1;
    auto body = [&](int64_t task) {
      const int64_t pair = task / int64_t(call.pools.size());
      const int i = int(task % int64_t(call.pools.size()));
      const Pool& pool = call.pools[i];
      const int64_t row = pair / call.key_heads * pool.slots * call.key_heads + pair % call.key_heads;
      for (int64_t cut = 0; cut < cuts; cut++) {
        const Sums& s = sums_[pair * cuts + cut][i];
        const auto [low, high] = ranges_[size_t(cut) * call.pools.size() + i];
        for (int64_t slot = low; slot < high; slot++) {
          float* dk = pool.dk + (row + slot * call.key_heads) * x_.dim;
          float* dv = pool.dv + (row + slot * call.key_heads) * x_.value_dim;
          add(dk, s.dk + (slot - low) * x_.dim, x_.dim, 1.0f);
          add(dv, s.dv + (slot - low) * x_.value_dim, x_.value_dim, 1.0f);
        }
      }
    };
    workers_.each(pairs_ * int64_t(call.pools.size()), body);
  }

  const Pass& x_;
  Workers& workers_;
  bool shared_bias_;
  int64_t pairs_;
  std::vector<int> cuts_;
  std::vector<std::vector<Sums>> sums_;
  std::vector<std::pair<int64_t, int64_t>> ranges_;
  std::unique_ptr<float[]> private_;
};

void clear(Workers& workers, float* x, int64_t size) {
  auto body = [&](int64_t i) { std::fill(x + i * BLOCK, x + std::min(size, (i + 1) * BLOCK), 0.0f); };
  workers.each((size + BLOCK - 1) / BLOCK, body);
}

}  // namespace

void backward(const Call& call, Workers& workers) {
  const int32_t parts = call.schedule.part_count();
  const int dim = int(call.head_dim), value_dim = int(call.value_dim);
  for (const Pool& pool : call.pools) {
    const int64_t rows = call.batch * pool.slots * call.key_heads;
    clear(workers, pool.dk, rows * dim);
    clear(workers, pool.dv, rows * value_dim);
    if (pool.dbias) clear(workers, pool.dbias, call.bias_batch * call.bias_heads * call.queries * pool.slots);
  }
  const bool every = parts > 0 && call.schedule.part(0).rows == tiles_of(call, call.schedule.part(0));
  if (!every) clear(workers, call.dq, call.batch * call.queries * call.heads * dim);
  if (call.slopes) std::fill_n(call.dslopes, call.heads, 0.0f);
  for (int i = 0; i < parts; i++) {
    const Pass pass{call, call.schedule.part(i), i == 0, dim, value_dim, round_up(dim, WIDTH),
                    round_up(value_dim, WIDTH)};
    Parallel(pass, workers).run(call.dslopes);
  }
}

}  // namespace patterndsl
