// The backward pass: a task is a run of query tiles of one sequence, with some of the key heads. Tasks whose keys may be
// the same have sums of their own, which are added up in the order of the tasks, so that the gradients are the same
// every time.
#include <memory>

#include "gradients.h"

namespace patterndsl {
namespace {

constexpr int64_t MOST_PRIVATE = int64_t(1) << 28;  // floats in all tasks' own sums
constexpr int64_t BLOCK = 1 << 16;                // floats that are cleared at a time
constexpr int64_t SLOTS = 1024;                   // that are summed at a time

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

std::vector<int> even_ranges(const Call& call, int cuts) {
  std::vector<int> found;
  for (int i = 0; i <= cuts; i++) found.push_back(int(call.queries * i / cuts));
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
    shared_bias_ = std::any_of(call.pools.begin(), call.pools.end(), [&](const Pool& pool) {
      return pool.bias && (pool.bias_batch < call.batch || pool.bias_heads < call.heads);
    });
    pairs_ = call.batch * call.key_heads;
    if (pass.part.groups) lanes_ = find_lanes(call, pass.part, workers);
    together_ = shared_bias_ ? call.key_heads : pass.part.groups ? 1 : heads_together();
    const int rows = pass.part.groups ? int(std::max<int64_t>(call.queries / LANES, 1)) : pass.part.rows;
    const int64_t units = shared_bias_ ? 1 : pairs_ / together_, wanted = 2 * workers.count();
    int cuts = 1;
    if (units % workers.count() && units < wanted)
      cuts = int(std::min<int64_t>((wanted + units - 1) / units, std::max(rows, 1)));
    for (;; cuts = (cuts + 1) / 2) {
      cuts_ = pass.part.groups ? even_ranges(call, cuts) : even_cuts(call, pass.part, cuts);
      if (cuts == 1 || reserve(cuts) <= MOST_PRIVATE) break;
    }
    if (cuts == 1) direct();
  }

  void run(float* d_slopes) {
    const Call& call = x_.call;
    const int64_t cuts = int64_t(cuts_.size()) - 1, shares = call.key_heads / together_;
    const int64_t tasks = shared_bias_ ? cuts : cuts * call.batch * shares;
    std::vector<float> slopes(size_t(tasks) * call.heads, 0.0f);
    auto body = [&](int64_t task) {
      const int64_t cut = task % cuts, unit = task / cuts, first = unit % shares * together_;
      const int64_t begin = shared_bias_ ? 0 : unit / shares, end = shared_bias_ ? call.batch : begin + 1;
      for (int64_t b = begin; b < end; b++) {
        const int64_t at = (b * call.key_heads + first) * cuts + cut;
        for (int64_t head = 0; head < together_ && cuts > 1; head++) clear_sums(at + head * cuts);
        if (x_.part.groups)
          groups_of(b, first, cut, &sums_[at], cuts, slopes.data() + task * call.heads);
        else
          rows_of(b, first, cut, &sums_[at], cuts, slopes.data() + task * call.heads);
      }
    };
    workers_.each(tasks, body);
    if (call.slopes)
      for (int64_t task = 0; task < tasks; task++)
        for (int64_t h = 0; h < call.heads; h++) d_slopes[h] += slopes[task * call.heads + h];
    if (cuts > 1) collect();
  }

 private:
  static Scratch& scratch() {
    static thread_local Scratch own;
    return own;
  }

  void rows_of(int64_t b, int64_t first, int64_t cut, const std::vector<Sums>* sums, int64_t stride, float* d_slopes) {
    Scratch& w = scratch();
    w.first_of_group = 0, w.group = x_.call.group();
    for (int row = cuts_[cut]; row < cuts_[cut + 1]; row++) {
      w.tile.begin(x_.call, x_.part, row, b);
      one_tile(x_, w, b, first, first + together_, sums, stride, d_slopes);
    }
  }

  // The same where a cut is a range of queries, whose heads each have their groups.
  void groups_of(int64_t b, int64_t first, int64_t cut, const std::vector<Sums>* sums, int64_t stride,
                 float* d_slopes) {
    const Call& call = x_.call;
    Scratch& w = scratch();
    w.group = 1;
    for (int64_t head = first * call.group(); head < (first + together_) * call.group(); head++) {
      const int64_t kv = head / call.group();
      const Lane& lane = lanes_[b * call.heads + head];
      each_tile(call, x_.part, lane, cuts_[cut], cuts_[cut + 1], [&](int group, int32_t begin, int32_t end) {
        w.first_of_group = int(head % call.group());
        w.tile.begin_group(call, x_.part, b, head, lane, group, begin, end);
        one_tile(x_, w, b, kv, kv + 1, sums + (kv - first) * stride, stride, d_slopes);
      });
    }
  }

  // Key heads of a task: they share the masks of its tiles. More than one where that leaves work for all.
  int64_t heads_together() const {
    const int64_t workers = workers_.count();
    for (int64_t heads = std::min<int64_t>(x_.call.key_heads, 4); heads > 1; heads--) {
      const int64_t tasks = pairs_ / heads;
      if (x_.call.key_heads % heads == 0 && (tasks % workers == 0 || tasks >= 4 * workers)) return heads;
    }
    return 1;
  }

  std::pair<int64_t, int64_t> range(int64_t cut, int pool) const { return ranges_[cut * x_.call.pools.size() + pool]; }

  // Where each pair of sequence and key head, and each cut, adds up; returns the floats that this takes.
  int64_t reserve(int cuts) {
    const Call& call = x_.call;
    const int pools = int(call.pools.size());
    ranges_.clear();
    int64_t size = 0;
    for (int cut = 0; cut < cuts; cut++)
      for (int i = 0; i < pools; i++) {
        if (x_.part.groups)
          ranges_.emplace_back(0, call.pools[i].slots);
        else
          ranges_.push_back(visited(call, x_.part, i, cuts_[cut], cuts_[cut + 1]));
        size += (ranges_.back().second - ranges_.back().first) * (x_.dim + x_.value_dim);
      }
    if (size * pairs_ > MOST_PRIVATE) return size * pairs_;
    private_.reset(new float[size_t(size * pairs_)]);
    float* at = private_.get();
    sums_.assign(size_t(pairs_) * cuts, std::vector<Sums>(pools));
    for (int64_t j = 0; j < pairs_ * cuts; j++)
      for (int i = 0; i < pools; i++) {
        const auto [low, high] = range(j % cuts, i);
        sums_[j][i] = {at, at + (high - low) * x_.dim, x_.dim, x_.value_dim, low};
        at += (high - low) * (x_.dim + x_.value_dim);
      }
    return size * pairs_;
  }

  void clear_sums(int64_t j) {
    for (int i = 0; i < int(x_.call.pools.size()); i++) {
      const auto [low, high] = range(j % (int64_t(cuts_.size()) - 1), i);
      std::fill_n(sums_[j][i].dk, (high - low) * (x_.dim + x_.value_dim), 0.0f);
    }
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
    for (int i = 0; i < int(call.pools.size()); i++) {
      const Pool& pool = call.pools[i];
      const int64_t blocks = (pool.slots + SLOTS - 1) / SLOTS;
      auto body = [&](int64_t task) {
        const int64_t pair = task / blocks, block = task % blocks * SLOTS;
        const int64_t row = pair / call.key_heads * pool.slots * call.key_heads + pair % call.key_heads;
        for (int64_t cut = 0; cut < cuts; cut++) {
          const Sums& s = sums_[pair * cuts + cut][i];
          const auto [low, high] = range(cut, i);
          for (int64_t slot = std::max(low, block); slot < std::min(high, block + SLOTS); slot++) {
            add(pool.dk + (row + slot * call.key_heads) * x_.dim, s.dk + (slot - low) * x_.dim, x_.dim);
            add(pool.dv + (row + slot * call.key_heads) * x_.value_dim, s.dv + (slot - low) * x_.value_dim,
                x_.value_dim);
          }
        }
      };
      workers_.each(pairs_ * blocks, body);
    }
  }

  static void add(float* to, const float* x, int size) {
    int i = 0;
    for (; i + WIDTH <= size; i += WIDTH) store(to + i, load(to + i) + load(x + i));
    for (; i < size; i++) to[i] += x[i];
  }

  const Pass& x_;
  Workers& workers_;
  bool shared_bias_;
  std::vector<Lane> lanes_;  // where the part has groups
  int64_t pairs_, together_;
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
    if (pool.dbias) clear(workers, pool.dbias, pool.bias_batch * pool.bias_heads * call.queries * pool.slots);
  }
  const bool every = parts > 0 && call.schedule.part(0).rows == tiles_of(call, call.schedule.part(0));
  if (!every) clear(workers, call.dq, call.batch * call.queries * call.heads * dim);
  if (call.slopes) std::fill_n(call.dslopes, call.heads, 0.0f);
  for (int i = 0; i < parts; i++) {
    const Pass pass{call, call.schedule.part(i), i == 0 && every, dim, value_dim, round_up(dim, WIDTH),
                    round_up(value_dim, WIDTH)};
    Parallel(pass, workers).run(call.dslopes);
  }
}

}  // namespace patterndsl
