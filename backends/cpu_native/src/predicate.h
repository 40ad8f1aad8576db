// Predicates: the instructions that `bytecode.py` makes of an expression, over vectors of 32-bit integers.
//
// Registers that depend on the query alone are computed once for a tile, those of the key alone once for a span of
// slots, the others key by key over the tile's queries. Truth is −1, falsehood 0.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "call.h"

namespace patterndsl {

enum Op : int32_t {  // the order of `bytecode.OPS`
  ADD, SUB, MUL, FLOORDIV, MOD, NEG, ABS, MIN, MAX, XOR, POPCOUNT, LT, LE, EQ, NE, AND, OR, NOT, IF, INPUT, LOOKUP,
  FORALL, EXISTS, FACT,
};

struct Instruction {
  int32_t op, to, a, b, c, d, e, f;
};

enum Kind : int32_t { CONSTANT, QUERY, KEY, PAIR };

struct TermHeader {
  int32_t constants, query_registers, key_registers, pair_registers, keep, count, query_code, key_code, pair_code,
      keys_read;
};

struct Operand {
  const int32_t* p;
  int step;  // 0: one value for all
  int32_t operator[](int i) const { return p[i * step]; }
};

inline int32_t floor_div(int32_t a, int32_t b) {
  // Exact: a quotient of 32-bit integers that is not whole is further from the next integer than a double rounds.
  return int32_t(std::floor(double(a) / double(b)));
}

template <typename F>
inline void binary(int32_t* to, Operand a, Operand b, int n, F f) {
  if (a.step && b.step)
    for (int i = 0; i < n; i++) to[i] = f(a.p[i], b.p[i]);
  else if (a.step)
    for (int i = 0, y = *b.p; i < n; i++) to[i] = f(a.p[i], y);
  else if (b.step)
    for (int i = 0, x = *a.p; i < n; i++) to[i] = f(x, b.p[i]);
  else
    std::fill(to, to + n, f(*a.p, *b.p));
}

template <typename F>
inline void unary(int32_t* to, Operand a, int n, F f) {
  for (int i = 0; i < n; i++) to[i] = f(a[i]);
}

class Predicate {
 public:
  // `head`: the query head whose facts are read.
  void begin(const Call& call, const int32_t* term, int64_t batch, int64_t head, const int32_t* positions,
             int queries) {
    call_ = &call, batch_ = batch, query_head_ = head, queries_ = queries;
    head_ = reinterpret_cast<const TermHeader*>(term);
    keys_read_ = term + sizeof(TermHeader) / 4;
    constants_ = keys_read_ + head_->keys_read;
    auto* code = reinterpret_cast<const Instruction*>(constants_ + head_->constants);
    key_code_ = code + head_->query_code, pair_code_ = key_code_ + head_->key_code;
    of_query_.resize(size_t(head_->query_registers) * queries);
    of_pair_.resize(size_t(head_->pair_registers) * queries);
    std::copy(positions, positions + queries, of_query_.begin());
    run(code, head_->query_code, QUERY, queries);
  }

  // Before `at`: the slots of a span.
  void keys(const int32_t* slots, int count) {
    keys_ = count;
    of_key_.resize(size_t(head_->key_registers) * count);
    std::copy(slots, slots + count, of_key_.begin());
    run(key_code_, head_->key_code, KEY, count);
  }

  // The predicate of a key with each query; null where it is that of the key before.
  bool at(int key) {
    bool same = key > 0;
    for (int i = 0; i < head_->keys_read && same; i++) {
      const int32_t* values = of_key_.data() + size_t(keys_read_[i]) * keys_;
      same = values[key] == values[key - 1];
    }
    if (same) return false;
    key_ = key;
    run(pair_code_, head_->pair_code, PAIR, queries_);
    return true;
  }
  Operand keep() const { return operand(head_->keep, PAIR); }
  bool counts() const { return head_->count >= 0; }
  Operand count() const { return operand(head_->count, PAIR); }

 private:
  Operand operand(int32_t code, Kind phase) const {
    int32_t i = code & 0xffffff;
    switch (Kind(code >> 24)) {
      case CONSTANT: return {constants_ + i, 0};
      // What a key's code reads of the queries' does not depend on the query: the first value stands for all.
      case QUERY: return {of_query_.data() + size_t(i) * queries_, phase == KEY ? 0 : 1};
      case KEY:
        return phase == KEY ? Operand{of_key_.data() + size_t(i) * keys_, 1}
                            : Operand{of_key_.data() + size_t(i) * keys_ + key_, 0};
      default: return {of_pair_.data() + size_t(i) * queries_, 1};
    }
  }
  int32_t* target(int32_t code, Kind phase) { return const_cast<int32_t*>(operand(code, phase).p); }

  void run(const Instruction* code, int count, Kind phase, int n) {
    for (const Instruction* i = code; i < code + count; i++) {
      if (i->op == FORALL || i->op == EXISTS) {
        quantify(*i, i + 1, phase, n);
        i += i->f;
      } else {
        step(*i, phase, n);
      }
    }
  }

  void step(const Instruction& x, Kind phase, int n) {
    int32_t* to = target(x.to, phase);
    Operand a = operand(x.a, phase);
    switch (Op(x.op)) {
      case ADD: return binary(to, a, operand(x.b, phase), n, [](int32_t u, int32_t v) { return u + v; });
      case SUB: return binary(to, a, operand(x.b, phase), n, [](int32_t u, int32_t v) { return u - v; });
      case MUL: return binary(to, a, operand(x.b, phase), n, [](int32_t u, int32_t v) { return u * v; });
      case FLOORDIV: return binary(to, a, operand(x.b, phase), n, floor_div);
      case MOD:
        return binary(to, a, operand(x.b, phase), n, [](int32_t u, int32_t v) { return u - v * floor_div(u, v); });
      case NEG: return unary(to, a, n, [](int32_t u) { return -u; });
      case ABS: return unary(to, a, n, [](int32_t u) { return u < 0 ? -u : u; });
      case MIN: return binary(to, a, operand(x.b, phase), n, [](int32_t u, int32_t v) { return u < v ? u : v; });
      case MAX: return binary(to, a, operand(x.b, phase), n, [](int32_t u, int32_t v) { return u > v ? u : v; });
      case XOR: return binary(to, a, operand(x.b, phase), n, [](int32_t u, int32_t v) { return u ^ v; });
      case POPCOUNT: return unary(to, a, n, [](int32_t u) { return int32_t(__builtin_popcount(uint32_t(u))); });
      case LT: return binary(to, a, operand(x.b, phase), n, [](int32_t u, int32_t v) { return -int32_t(u < v); });
      case LE: return binary(to, a, operand(x.b, phase), n, [](int32_t u, int32_t v) { return -int32_t(u <= v); });
      case EQ: return binary(to, a, operand(x.b, phase), n, [](int32_t u, int32_t v) { return -int32_t(u == v); });
      case NE: return binary(to, a, operand(x.b, phase), n, [](int32_t u, int32_t v) { return -int32_t(u != v); });
      case AND: return binary(to, a, operand(x.b, phase), n, [](int32_t u, int32_t v) { return u & v; });
      case OR: return binary(to, a, operand(x.b, phase), n, [](int32_t u, int32_t v) { return u | v; });
      case NOT: return unary(to, a, n, [](int32_t u) { return ~u; });
      case IF: {
        Operand b = operand(x.b, phase), c = operand(x.c, phase);
        for (int i = 0; i < n; i++) to[i] = a[i] ? b[i] : c[i];
        return;
      }
      case INPUT: {
        const Input& input = call_->inputs[x.b];
        const int32_t* values = input.values + input.batch_stride * batch_;
        int32_t last = call_->schedule.n() - 1;
        return unary(to, a, n, [=](int32_t u) { return values[u < 0 ? 0 : u > last ? last : u]; });
      }
      case FACT: {
        const Fact& fact = call_->facts[x.c];
        Operand column = operand(x.b, phase);
        for (int i = 0; i < n; i++) to[i] = fact.at(batch_, query_head_, a[i], column[i]);
        return;
      }
      case LOOKUP: return lookup(to, a, operand(x.b, phase), x, n);
      default: return;
    }
  }

  // Whether a table [rows, width] of sorted columns, short rows filled up with `columns`, holds (row, column).
  void lookup(int32_t* to, Operand row, Operand column, const Instruction& x, int n) {
    const int32_t* table = call_->schedule.data + x.c;
    int32_t rows = x.d, width = x.e, columns = x.f;
    for (int i = 0; i < n; i++) {
      int32_t r = row[i], c = column[i];
      bool inside = r >= 0 && r < rows && c < columns;
      const int32_t* listed = table + int64_t(inside ? r : 0) * width;
      to[i] = -int32_t(inside && std::binary_search(listed, listed + width, c));
    }
  }

  // x.a … x.b: first and last value of the variable x.d; x.c: the body; x.e: how many values at most.
  void quantify(const Instruction& x, const Instruction* body, Kind phase, int n) {
    const bool every = x.op == FORALL;
    int32_t *to = target(x.to, phase), *variable = target(x.d, phase);
    std::fill(to, to + n, every ? -1 : 0);
    int32_t most = 0;
    for (int i = 0; i < n; i++)
      most = std::max(most, int32_t(std::min<int64_t>(x.e, int64_t(operand(x.b, phase)[i]) - operand(x.a, phase)[i] + 1)));
    for (int32_t t = 0; t < most; t++) {
      Operand first = operand(x.a, phase), last = operand(x.b, phase);
      for (int i = 0; i < n; i++) variable[i] = first[i] + t;
      run(body, x.f, phase, n);
      Operand held = operand(x.c, phase);
      if (every)
        for (int i = 0; i < n; i++) to[i] &= held[i] | -int32_t(variable[i] > last[i]);
      else
        for (int i = 0; i < n; i++) to[i] |= held[i] & -int32_t(variable[i] <= last[i]);
    }
  }

  const Call* call_ = nullptr;
  int64_t batch_ = 0, query_head_ = 0;
  int queries_ = 0, keys_ = 0, key_ = 0;
  const TermHeader* head_ = nullptr;
  const int32_t *keys_read_ = nullptr, *constants_ = nullptr;
  const Instruction *key_code_ = nullptr, *pair_code_ = nullptr;
  std::vector<int32_t> of_query_, of_key_, of_pair_;
};

}  // namespace patterndsl
