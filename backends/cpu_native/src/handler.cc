// The XLA custom calls: from buffers to a `Call`, and the pool of threads.
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>

#include "choose.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace patterndsl {
namespace {

// Tasks are taken one by one, by the calling thread and by those of XLA's pool that come to help. Helpers that come
// late find nothing left, and touch only `State`, which lives as long as they do.
class XlaWorkers : public Workers {
 public:
  explicit XlaWorkers(ffi::ThreadPool& pool) : pool_(pool), threads_(int(std::max<int64_t>(1, pool.num_threads()))) {}
  int count() const override { return threads_; }

  void run(int64_t tasks, void (*body)(void*, int64_t), void* data) override {
    if (tasks <= 0) return;
    auto state = std::make_shared<State>(tasks, body, data);
    const int64_t helpers = std::min<int64_t>(threads_ - 1, tasks - 1);
    for (int64_t i = 0; i < helpers; i++) pool_.Schedule([state] { state->work(); });
    state->work();
    std::unique_lock<std::mutex> lock(state->mutex);
    state->finished.wait(lock, [&] { return state->done == state->tasks; });
  }

 private:
  struct State {
    State(int64_t tasks, void (*body)(void*, int64_t), void* data) : tasks(tasks), body(body), data(data) {}
    void work() {
      for (int64_t mine = 0;; mine++) {
        const int64_t task = next.fetch_add(1);
        if (task >= tasks) {
          std::lock_guard<std::mutex> lock(mutex);
          done += mine;
          if (done == tasks) finished.notify_all();
          return;
        }
        body(data, task);
      }
    }
    const int64_t tasks;
    void (*const body)(void*, int64_t);
    void* const data;
    std::atomic<int64_t> next{0};
    int64_t done = 0;
    std::mutex mutex;
    std::condition_variable finished;
  };
  ffi::ThreadPool& pool_;
  const int threads_;
};

// Reads arguments in the order in which `calls.py` passes them.
class Reader {
 public:
  explicit Reader(ffi::RemainingArgs args) : args_(args) {}
  ffi::AnyBuffer next() { return *args_.get<ffi::AnyBuffer>(i_++); }
  const int32_t* integers() { return static_cast<const int32_t*>(next().untyped_data()); }
  const float* floats() { return static_cast<const float*>(next().untyped_data()); }

 private:
  ffi::RemainingArgs args_;
  size_t i_ = 0;
};

Call read_call(Reader& args, float scale, float softcap) {
  Call call{};
  call.schedule.data = args.integers();
  call.offset = *args.integers();
  ffi::AnyBuffer lengths = args.next();
  call.lengths = lengths.element_count() ? static_cast<const int32_t*>(lengths.untyped_data()) : nullptr;
  ffi::AnyBuffer q = args.next();
  call.q = q.untyped_data();
  call.bfloat16 = q.element_type() == ffi::BF16;
  call.batch = q.dimensions()[0], call.queries = q.dimensions()[1], call.heads = q.dimensions()[2];
  call.head_dim = q.dimensions()[3];
  call.key_heads = call.heads / call.group();
  call.scale = scale, call.softcap = softcap;
  ffi::AnyBuffer slopes = args.next();
  call.slopes = slopes.element_count() ? static_cast<const float*>(slopes.untyped_data()) : nullptr;
  for (int i = 0; i < call.schedule.pool_count(); i++) {
    Pool pool{};
    ffi::AnyBuffer k = args.next(), v = args.next();
    pool.k = k.untyped_data(), pool.v = v.untyped_data(), pool.slots = k.dimensions()[1];
    call.value_dim = v.dimensions()[3];
    if (call.schedule.has_bias()) {
      ffi::AnyBuffer bias = args.next();
      pool.bias = static_cast<const float*>(bias.untyped_data());
      pool.bias_batch = bias.dimensions()[0], pool.bias_heads = bias.dimensions()[1];
    }
    call.pools.push_back(pool);
  }
  for (int i = 0; i < call.schedule.input_count(); i++) {
    ffi::AnyBuffer input = args.next();
    call.inputs.push_back({static_cast<const int32_t*>(input.untyped_data()),
                           input.dimensions()[0] > 1 ? input.dimensions()[1] : 0});
  }
  for (int i = 0; i < call.schedule.fact_count(); i++) {
    ffi::AnyBuffer values = args.next();
    auto sizes = values.dimensions();  // sequences, heads, rows, columns
    const int64_t of_head = sizes[2] * sizes[3];
    call.facts.push_back({values.untyped_data(), values.element_type() == ffi::S8,
                          sizes[0] > 1 ? sizes[1] * of_head : 0, sizes[1] > 1 ? of_head : 0, int32_t(sizes[2]),
                          int32_t(sizes[3]), *args.integers()});
  }
  for (int i = 0; i < call.schedule.grouped_count(); i++) call.rows_of_queries.push_back(args.integers());
  return call;
}

float* result(ffi::RemainingRets& results, size_t i) {
  return static_cast<float*>((*results.get<ffi::AnyBuffer>(i))->untyped_data());
}

ffi::Error run_forward(ffi::ThreadPool pool, float scale, float softcap, ffi::RemainingArgs args,
                       ffi::RemainingRets results) {
  Reader reader(args);
  Call call = read_call(reader, scale, softcap);
  call.out = result(results, 0), call.lse = result(results, 1);
  XlaWorkers workers(pool);
  forward(call, workers);
  return ffi::Error::Success();
}

ffi::Error run_backward(ffi::ThreadPool pool, float scale, float softcap, ffi::RemainingArgs args,
                        ffi::RemainingRets results) {
  Reader reader(args);
  Call call = read_call(reader, scale, softcap);
  call.out = const_cast<float*>(reader.floats()), call.lse = const_cast<float*>(reader.floats());
  call.d_out = reader.floats(), call.d_lse = reader.floats();
  size_t i = 0;
  call.dq = result(results, i++);
  call.dslopes = result(results, i++);
  for (Pool& pool_of_keys : call.pools) {
    pool_of_keys.dk = result(results, i++), pool_of_keys.dv = result(results, i++);
    if (call.schedule.has_bias()) pool_of_keys.dbias = result(results, i++);
  }
  XlaWorkers workers(pool);
  backward(call, workers);
  return ffi::Error::Success();
}

ffi::Error run_largest(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> scores, ffi::Buffer<ffi::PRED> allowed,
                       ffi::ResultBuffer<ffi::S32> chosen) {
  auto sizes = scores.dimensions(), may = allowed.dimensions();
  XlaWorkers workers(pool);
  const auto* bytes = reinterpret_cast<const uint8_t*>(allowed.typed_data());
  largest({scores.typed_data(), bytes, sizes[0], sizes[1], sizes[2], sizes[3], may[0], may[1]},
          int(chosen->dimensions()[3]), chosen->typed_data(), workers);
  return ffi::Error::Success();
}

ffi::Error run_signs(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::ResultBuffer<ffi::S32> places) {
  XlaWorkers workers(pool);
  largest_of_both_signs(x.typed_data(), int64_t(places->element_count()), x.dimensions().back(), places->typed_data(),
                        workers);
  return ffi::Error::Success();
}

}  // namespace
}  // namespace patterndsl

#pragma GCC visibility push(default)
XLA_FFI_DEFINE_HANDLER_SYMBOL(patterndsl_forward, patterndsl::run_forward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<float>("scale")
                                  .Attr<float>("softcap")
                                  .RemainingArgs()
                                  .RemainingRets());
XLA_FFI_DEFINE_HANDLER_SYMBOL(patterndsl_backward, patterndsl::run_backward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<float>("scale")
                                  .Attr<float>("softcap")
                                  .RemainingArgs()
                                  .RemainingRets());
XLA_FFI_DEFINE_HANDLER_SYMBOL(patterndsl_largest, patterndsl::run_largest,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::PRED>>()
                                  .Ret<ffi::Buffer<ffi::S32>>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(patterndsl_signs, patterndsl::run_signs,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::S32>>());
#pragma GCC visibility pop
