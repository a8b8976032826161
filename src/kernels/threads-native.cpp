// The pool on the threads of the operating system.
//
// A job is a number of tasks. Who wants one takes the next number from an
// atomic counter that also carries the job's own number, so that a thread that
// comes late, holding the description of a job that is over, takes nothing.
// The caller works too, and waits only for tasks that others have taken: a
// thread that sleeps or was pushed aside by the system delays nobody.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

#include "pool.h"
#include "threads.h"

#if defined(__x86_64__) || defined(_M_X64) || defined(__i386__) || defined(_M_IX86)
#include <immintrin.h>
#define LOWBIT_X86
#endif

namespace lowbit {

namespace {

// How long a thread looks for work before it sleeps. Waking it takes 20 to 50 µs, sometimes much more; the code between
// two operations of a model takes less than this.
constexpr auto SPIN = std::chrono::microseconds(200);
constexpr int MOST_THREADS = 256;
// Jobs and tasks are counted in 32 bits each.
constexpr uint64_t NUMBERS = 0xffffffff;

inline void pause() {
#if defined(LOWBIT_X86)
  _mm_pause();
#elif defined(__aarch64__) && !defined(_MSC_VER)
  __asm__ __volatile__("yield");
#endif
}

// Rounding and the treatment of denormal numbers, which every thread has for itself.
inline unsigned floating_point_mode() {
#if defined(LOWBIT_X86)
  return _mm_getcsr() & ~0x3fu;  // without the flags of exceptions met so far
#else
  return 0;
#endif
}

inline void set_floating_point_mode(unsigned mode) {
#if defined(LOWBIT_X86)
  if (floating_point_mode() != mode) _mm_setcsr(mode);
#else
  static_cast<void>(mode);
#endif
}

using Body = void (*)(void*, int64_t);

struct Pool {
  // Number of the job in the upper 32 bits, next task below.
  alignas(128) std::atomic<uint64_t> next{0};
  // Tasks done.
  alignas(128) std::atomic<int64_t> done{0};
  // The job. Between two jobs `next` carries a number that has no tasks: the fields change only then, so who takes a
  // task of a number has read the job of that number.
  alignas(128) std::atomic<Body> body{nullptr};
  std::atomic<void*> context{nullptr};
  std::atomic<int64_t> tasks{0};
  std::atomic<int> threads{1};
  std::atomic<unsigned> mode{0};

  alignas(128) std::atomic<int> asleep{0};
  std::mutex sleep;
  std::condition_variable wake;
  int started = 1;  // the caller counts
};

// Never destroyed: its threads run until the process ends.
Pool& pool() {
  static Pool* one = new Pool;
  return *one;
}

// Held during a kernel: environments (worker_threads) take turns.
std::mutex& turn() {
  static std::mutex* one = new std::mutex;
  return *one;
}

int allowed = 1;
thread_local int index = 0;
thread_local bool inside = false;

// Takes and does tasks of job `number` until none is left; returns how many.
int64_t work(Pool& p, uint64_t number, Body body, void* context, int64_t tasks) {
  int64_t count = 0;
  uint64_t at = p.next.load(std::memory_order_acquire);
  for (;;) {
    if (at >> 32 != number || static_cast<int64_t>(at & NUMBERS) >= tasks) return count;
    if (!p.next.compare_exchange_weak(at, at + 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
    body(context, static_cast<int64_t>(at & NUMBERS));
    count++;
    at = p.next.load(std::memory_order_acquire);
  }
}

void thread_main(int self) {
  index = self;
  inside = true;
  Pool& p = pool();
  uint64_t seen = 0;
  auto until = std::chrono::steady_clock::now() + SPIN;
  for (unsigned turns = 1;; turns++) {
    const uint64_t number = p.next.load(std::memory_order_acquire) >> 32;
    if (number != seen) {
      seen = number;
      if (self < p.threads.load(std::memory_order_relaxed)) {
        const Body body = p.body.load(std::memory_order_acquire);
        void* context = p.context.load(std::memory_order_acquire);
        const int64_t tasks = p.tasks.load(std::memory_order_acquire);
        set_floating_point_mode(p.mode.load(std::memory_order_relaxed));
        const int64_t count = work(p, number, body, context, tasks);
        if (count > 0) {
          p.done.fetch_add(count, std::memory_order_release);
          until = std::chrono::steady_clock::now() + SPIN;
        }
      }
      continue;
    }
    pause();
    if (turns % 64 != 0 || std::chrono::steady_clock::now() < until) continue;
    std::unique_lock<std::mutex> lock(p.sleep);
    p.asleep.fetch_add(1, std::memory_order_seq_cst);
    p.wake.wait(lock, [&] { return p.next.load(std::memory_order_seq_cst) >> 32 != seen; });
    p.asleep.fetch_sub(1, std::memory_order_relaxed);
    until = std::chrono::steady_clock::now() + SPIN;
  }
}

// Starts threads up to `wanted`; fewer when the system gives no more, which changes no result.
void start(Pool& p, int wanted) {
  while (p.started < wanted && p.started < MOST_THREADS) {
    try {
      std::thread(thread_main, p.started).detach();
    } catch (const std::system_error&) {
      return;
    }
    p.started++;
  }
}

void run_job(Pool& p, int64_t tasks, Body body, void* context) {
  const uint64_t closed = ((p.next.load(std::memory_order_relaxed) >> 32) + 1) & NUMBERS;
  const uint64_t number = (closed + 1) & NUMBERS;
  p.next.store(closed << 32 | NUMBERS, std::memory_order_release);
  p.body.store(body, std::memory_order_release);
  p.context.store(context, std::memory_order_release);
  p.tasks.store(tasks, std::memory_order_release);
  p.threads.store(allowed, std::memory_order_relaxed);
  p.mode.store(floating_point_mode(), std::memory_order_relaxed);
  p.done.store(0, std::memory_order_relaxed);
  p.next.store(number << 32, std::memory_order_seq_cst);
  if (p.asleep.load(std::memory_order_seq_cst) > 0) {
    std::lock_guard<std::mutex> lock(p.sleep);
    p.wake.notify_all();
  }
  inside = true;
  const int64_t mine = work(p, number, body, context, tasks);
  inside = false;
  for (unsigned turns = 1; p.done.load(std::memory_order_acquire) + mine < tasks; turns++) {
    pause();
    if (turns % 4096 == 0) std::this_thread::yield();
  }
}

}  // namespace

extern "C" void lowbit_pool_run(int64_t tasks, void (*body)(void* context, int64_t task), void* context) {
  if (allowed == 1 || inside || tasks > static_cast<int64_t>(NUMBERS)) {
    for (int64_t task = 0; task < tasks; task++) body(context, task);
    return;
  }
  run_job(pool(), tasks, body, context);
}

extern "C" int lowbit_threads() { return allowed; }
extern "C" int lowbit_thread() { return index; }

PoolTurn::PoolTurn(int threads) {
  turn().lock();
  const int wanted = threads < 1 ? 1 : threads > MOST_THREADS ? MOST_THREADS : threads;
  Pool& p = pool();
  if (wanted > p.started) start(p, wanted);
  allowed = wanted < p.started ? wanted : p.started;
}

PoolTurn::~PoolTurn() { turn().unlock(); }

}  // namespace lowbit
