// One call: its operands, and the schedule that `schedule.py` writes as one array of 32-bit integers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace patterndsl {

// Offsets into the schedule are counted in its integers.

struct Source {  // as `schedule.py` writes it
  int32_t pool, tokens, slots, stride, size, counted, term, spare;
};

struct Part {
  int32_t block_q, source_count, sources, queries, query_places, tokens, rows, tiles, ends, runs, groups;
};

// Of a part whose queries and keys are brought together at run time. A query names `choices` groups, in those columns
// of its row of a fact; or, where there are none, groups take queries and keys, which their columns then say.
struct Groups {
  int32_t count, size, choices, of_queries, of_keys, key_column, rows, before, masked;
  const int32_t* columns() const { return reinterpret_cast<const int32_t*>(this) + 9; }
};

struct Schedule {
  const int32_t* data;
  int32_t n() const { return data[0]; }
  int32_t queries() const { return data[1]; }
  int32_t heads_per_key_head() const { return data[2]; }
  int32_t pool_count() const { return data[3]; }
  bool has_bias() const { return data[4]; }
  int32_t input_count() const { return data[5]; }
  int32_t fact_count() const { return data[6]; }
  int32_t part_count() const { return data[7]; }
  const Part& part(int i) const { return *reinterpret_cast<const Part*>(data + data[8 + i]); }
  int32_t grouped_count() const {
    int32_t found = 0;
    for (int i = 0; i < part_count(); i++) found += part(i).groups != 0;
    return found;
  }
  const Groups& groups(const Part& p) const { return *reinterpret_cast<const Groups*>(data + p.groups); }
  const Source& source(const Part& p, int i) const {
    return reinterpret_cast<const Source*>(data + p.sources)[i];
  }
};

// Keys, values [batch, slots, key heads, …] and bias [batch or 1, heads or 1, queries, slots] of a pool. Sequences that
// share the bias on tokens do not share that on summaries where their lengths differ.
struct Pool {
  const void *k, *v;
  const float* bias = nullptr;
  int64_t slots, bias_batch = 1, bias_heads = 1;
  float *dk = nullptr, *dv = nullptr, *dbias = nullptr;
};

struct Input {
  const int32_t* values;
  int64_t batch_stride;  // 0 where all sequences share it
};

// What a choice has found of q and k: integers [rows, columns] of a sequence and query head, from row `first` on.
struct Fact {
  const void* values;
  bool bytes;
  int64_t batch_stride, head_stride;  // 0 where they share it
  int32_t rows, columns, first;
  int64_t row(int64_t batch, int64_t head, int32_t index) const {
    const int64_t within = std::clamp<int64_t>(int64_t(index) - first, 0, rows - 1);
    return batch * batch_stride + head * head_stride + within * columns;
  }
  int32_t read(int64_t at) const {
    return bytes ? static_cast<const int8_t*>(values)[at] : static_cast<const int32_t*>(values)[at];
  }
  int32_t at(int64_t batch, int64_t head, int32_t index, int32_t column) const {
    return read(row(batch, head, index) + std::clamp(column, 0, columns - 1));
  }
};

struct Call {
  Schedule schedule;
  int64_t batch, queries, heads, key_heads, head_dim, value_dim;
  bool bfloat16;
  float scale, softcap;  // softcap 0: none
  int32_t offset;
  const int32_t* lengths;  // null: none
  const void* q;
  const float* slopes;  // null: none
  std::vector<Pool> pools;
  std::vector<Input> inputs;
  std::vector<Fact> facts;
  std::vector<const int32_t*> rows_of_queries;  // in the facts that grouped parts read, one array for each part
  float *out, *lse;                   // written by the forward pass, read by the backward pass
  const float *d_out, *d_lse;         // backward
  float *dq = nullptr, *dslopes = nullptr;

  int group() const { return schedule.heads_per_key_head(); }
  int64_t row(int64_t b, int64_t query, int64_t head) const { return (b * queries + query) * heads + head; }
  int64_t bias_row(int64_t b, int64_t head, int64_t query, const Pool& p) const {
    return (((p.bias_batch > 1 ? b : 0) * p.bias_heads + (p.bias_heads > 1 ? head : 0)) * queries + query) * p.slots;
  }
};

// Runs body(task) for every task, on the threads of the pool, and returns when all are done.
class Workers {
 public:
  virtual ~Workers() = default;
  virtual int count() const = 0;
  virtual void run(int64_t tasks, void (*body)(void*, int64_t), void* data) = 0;
  template <typename F>
  void each(int64_t tasks, F& f) {
    run(tasks, [](void* data, int64_t task) { (*static_cast<F*>(data))(task); }, &f);
  }
};

void forward(const Call& call, Workers& workers);
void backward(const Call& call, Workers& workers);

}  // namespace patterndsl
