// Groups of queries and keys, known at run time: which they are, for one query head of one sequence.
#pragma once

#include <vector>

#include "call.h"
#include "simd.h"

namespace patterndsl {

constexpr int MOST_TOGETHER = 256;  // queries of a tile: the keys of their group are packed once for them

// Queries and keys, group after group, rising in each; `keys` is empty where a group's are consecutive.
struct Lane {
  std::vector<int32_t> queries, query_start, keys, key_start;
  int words = 0;                               // integers of 32 groups each, where pairs may be in several
  std::vector<uint32_t> of_queries, of_keys;   // [query or key][words]: the groups that have it

  int32_t first_key(const Groups& g, int group) const {
    return key_start.empty() ? group * g.size : key_start[group];
  }
  int32_t last_key(const Groups& g, int group, int32_t n) const {
    return key_start.empty() ? int32_t(std::min<int64_t>(int64_t(group + 1) * g.size, n)) : key_start[group + 1];
  }
  // Where the queries of a group begin that are not before `query`.
  int32_t place(int group, int32_t query) const {
    auto begin = queries.begin() + query_start[group], end = queries.begin() + query_start[group + 1];
    return int32_t(std::lower_bound(begin, end, query) - queries.begin());
  }
};

// Lists what `each(add)` adds as add(group, index), group by group, in the order in which it is added.
template <typename Each>
inline void list_by_group(int32_t groups, std::vector<int32_t>& start, std::vector<int32_t>& listed, Each each) {
  start.assign(size_t(groups) + 1, 0);
  each([&](int32_t group, int32_t) { start[group + 1]++; });
  for (int32_t g = 0; g < groups; g++) start[g + 1] += start[g];
  listed.resize(start.back());
  std::vector<int32_t> next(start.begin(), start.end() - 1);
  each([&](int32_t group, int32_t index) { listed[next[group]++] = index; });
}

inline void name_groups(const Call& call, const Groups& g, int64_t batch, int64_t head, Lane& lane) {
  const Fact& fact = call.facts[g.of_queries];
  const int32_t *rows = call.rows_of_queries[g.rows], *columns = g.columns();
  std::vector<int32_t> last(g.count);  // query that named a group, as one that is named twice counts once
  list_by_group(g.count, lane.query_start, lane.queries, [&](auto add) {
    std::fill(last.begin(), last.end(), -1);
    for (int32_t query = 0; query < call.queries; query++) {
      const int64_t row = fact.row(batch, head, rows[query]);
      for (int i = 0; i < g.choices; i++) {
        const int32_t group = fact.read(row + std::clamp(columns[i], 0, fact.columns - 1));
        if (group < 0 || group >= g.count || last[group] == query) continue;
        last[group] = query;
        add(group, query);
      }
    }
  });
  if (g.size) return;
  const Fact& keys = call.facts[g.of_keys];
  list_by_group(g.count, lane.key_start, lane.keys, [&](auto add) {
    for (int32_t key = 0; key < call.schedule.n(); key++) {
      const int32_t group = keys.at(batch, head, key, g.key_column);
      if (group >= 0 && group < g.count) add(group, key);
    }
  });
}

// The members of each group, and the groups of each member: of rows `row(i)` those columns that are 1.
template <typename Row>
inline void list_members(const Fact& fact, const Groups& g, int64_t batch, int64_t head, int32_t size, Row row,
                         std::vector<int32_t>& start, std::vector<int32_t>& listed, std::vector<uint32_t>& bits) {
  const int words = (g.count + 31) / 32;
  bits.assign(size_t(size) * words, 0);
  for (int32_t i = 0; i < size; i++) {
    const int64_t at = fact.row(batch, head, row(i));
    for (int32_t group = 0; group < g.count; group++)
      bits[size_t(i) * words + group / 32] |=
          uint32_t(fact.read(at + std::min(group, fact.columns - 1)) == 1) << group % 32;
  }
  list_by_group(g.count, start, listed, [&](auto add) {
    for (int32_t i = 0; i < size; i++)
      for (int w = 0; w < words; w++)
        for (uint32_t left = bits[size_t(i) * words + w]; left; left &= left - 1)
          add(32 * w + __builtin_ctz(left), i);
  });
}

inline void find_groups(const Call& call, const Part& part, int64_t batch, int64_t head, Lane& lane) {
  const Groups& g = call.schedule.groups(part);
  if (g.choices) return name_groups(call, g, batch, head, lane);
  const int32_t* rows = call.rows_of_queries[g.rows];
  list_members(call.facts[g.of_queries], g, batch, head, int32_t(call.queries), [&](int32_t i) { return rows[i]; },
               lane.query_start, lane.queries, lane.of_queries);
  list_members(call.facts[g.of_keys], g, batch, head, call.schedule.n(), [](int32_t i) { return i; },
               lane.key_start, lane.keys, lane.of_keys);
  lane.words = (g.count + 31) / 32;
}

// Of every query head of every sequence.
inline std::vector<Lane> find_lanes(const Call& call, const Part& part, Workers& workers) {
  std::vector<Lane> lanes(size_t(call.batch) * call.heads);
  auto body = [&](int64_t i) { find_groups(call, part, i / call.heads, i % call.heads, lanes[i]); };
  workers.each(int64_t(lanes.size()), body);
  return lanes;
}

// Into how many ranges the queries of each of `lanes` heads are cut, so that there is work for all: a query's groups
// are met by one worker, in their order, so that results are the same every time.
inline int64_t cuts_of_queries(const Call& call, int64_t lanes, Workers& workers) {
  const int64_t wanted = (4 * workers.count() + lanes - 1) / lanes;
  return workers.count() == 1 ? 1 : std::clamp<int64_t>(wanted, 1, std::max<int64_t>(call.queries / LANES, 1));
}

// Calls f(group, first, last) for tiles of the queries from `begin` to `end` that groups have: places in its list.
template <typename F>
inline void each_tile(const Call& call, const Part& part, const Lane& lane, int32_t begin, int32_t end, F f) {
  const Groups& g = call.schedule.groups(part);
  for (int group = 0; group < g.count; group++) {
    if (lane.first_key(g, group) >= lane.last_key(g, group, call.schedule.n())) continue;
    int32_t first = lane.place(group, begin);
    const int32_t last = lane.place(group, end);
    const int32_t tiles = (last - first + MOST_TOGETHER - 1) / MOST_TOGETHER;
    for (int32_t left = tiles; left > 0; left--) {
      const int32_t size = ((last - first + left - 1) / left + LANES - 1) / LANES * LANES;
      f(group, first, std::min(first + size, last));
      first = std::min(first + size, last);
    }
  }
}

}  // namespace patterndsl
