// 3x3 convolutions of nst_jax by oneDNN, as calls of XLA's foreign function interface.
//
// A picture is cut into bands of rows, which XLA's own threads and the calling one take in turn, each with a
// single-threaded primitive: so threads are as many as JAX has, and no other pool competes with them. The
// caller takes part itself, and waits for nothing but bands that somebody works on: calls cannot block each
// other. Nothing is locked while anything is computed.

#include <dnnl.hpp>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

extern "C" {  // of the OpenMP library that oneDNN's wheel is linked with, whichever the compiler would take
int omp_get_max_threads();
void omp_set_num_threads(int);
}

namespace {

using dnnl::memory;
using Bytes = unsigned char;

constexpr int64_t kHeader = 64;  // bytes before a kernel: 16 of them are its name, the rest keeps it aligned
constexpr int64_t kBandRows = 8;  // of a band: little enough for the second-level cache
constexpr size_t kMostPrimitives = 1024;
constexpr size_t kMostWeights = 256u << 20;  // bytes of reordered kernels that are kept

// What primitives run on: one thread, whatever OpenMP would take.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }

 private:
  int before_;
};

const dnnl::engine& Engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

// Memory of one thread that grows to what was ever needed.
class Buffer {
 public:
  ~Buffer() { std::free(data_); }
  void* Get(size_t size) {
    if (size > size_) {
      std::free(data_);
      size_ = 0;
      data_ = std::aligned_alloc(64, (size + 63) / 64 * 64);
      if (!data_) throw std::bad_alloc();
      size_ = size;
    }
    return data_;
  }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

// A convolution of a band: rows and columns of its result, channels, rows of zeros above and below it.
struct Shape {
  int64_t rows, columns, in, out, above, below;
  bool narrow;   // bfloat16, else float32
  bool forward;  // with bias and ReLU
  bool operator<(const Shape& other) const { return Key() < other.Key(); }
  std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, bool, bool> Key() const {
    return {rows, columns, in, out, above, below, narrow, forward};
  }
  int64_t size() const { return narrow ? 2 : 4; }
};

struct Primitive {
  dnnl::convolution_forward::primitive_desc description;
  dnnl::convolution_forward call;
};

std::shared_ptr<const Primitive> Make(const Shape& shape) {
  const auto type = shape.narrow ? memory::data_type::bf16 : memory::data_type::f32;
  const memory::desc source({1, shape.in, shape.rows + 2 - shape.above - shape.below, shape.columns}, type,
                            memory::format_tag::nhwc);
  const memory::desc kernel({shape.out, shape.in, 3, 3}, type, memory::format_tag::any);
  const memory::desc result({1, shape.out, shape.rows, shape.columns}, type, memory::format_tag::nhwc);
  const memory::desc bias = shape.forward
                                ? memory::desc({shape.out}, memory::data_type::f32, memory::format_tag::x)
                                : memory::desc();
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (shape.forward) {
    dnnl::post_ops after;
    after.append_eltwise(dnnl::algorithm::eltwise_relu, 0.0f, 0.0f);
    attributes.set_post_ops(after);
  }
  dnnl::convolution_forward::primitive_desc description(
      Engine(), dnnl::prop_kind::forward_inference, dnnl::algorithm::convolution_direct, source, kernel, bias,
      result, {1, 1}, {shape.above, 1}, {shape.below, 1}, attributes);
  dnnl::convolution_forward call(description);
  return std::make_shared<Primitive>(Primitive{std::move(description), std::move(call)});
}

std::shared_ptr<const Primitive> Find(const Shape& shape) {
  static std::mutex mutex;
  static std::map<Shape, std::shared_ptr<const Primitive>> known;
  {
    std::lock_guard<std::mutex> lock(mutex);
    if (auto found = known.find(shape); found != known.end()) return found->second;
  }
  auto made = Make(shape);  // two threads may make the same one; one of the two is kept
  std::lock_guard<std::mutex> lock(mutex);
  if (known.size() >= kMostPrimitives) known.clear();
  return known.emplace(shape, std::move(made)).first->second;
}

using Name = std::pair<uint64_t, uint64_t>;

// 128 bits that stand for a kernel: two independent sums of products with odd numbers, mixed at each step.
Name NameOf(const Bytes* data, size_t size) {
  uint64_t a = 0x9e3779b97f4a7c15u ^ size, b = 0xc2b2ae3d27d4eb4fu + size;
  for (size_t at = 0; at < size; at += 8) {
    uint64_t word = 0;
    std::memcpy(&word, data + at, std::min<size_t>(8, size - at));
    a = (a ^ word) * 0xff51afd7ed558ccdu;
    a ^= a >> 32;
    b = (b + word) * 0xc4ceb9fe1a85ec53u;
    b ^= b >> 29;
  }
  return {a, b};
}

// Kernels in the order that a primitive wants them in, the least recently used forgotten first. A kernel is
// known by its name, which was computed once, and never by its address.
std::shared_ptr<const memory> Weights(const Bytes* packed, const Shape& shape, const memory::desc& wanted) {
  struct Entry {
    Name name;
    memory::desc order;
    std::shared_ptr<const memory> weights;
  };
  static std::mutex mutex;
  static std::list<Entry> known;  // the most recently used first: a few dozen
  static size_t held = 0;
  Name name;
  std::memcpy(&name.first, packed, 8);
  std::memcpy(&name.second, packed + 8, 8);
  const auto find = [&]() -> std::shared_ptr<const memory> {
    for (auto entry = known.begin(); entry != known.end(); ++entry) {
      if (entry->name != name || entry->order != wanted) continue;
      known.splice(known.begin(), known, entry);
      return entry->weights;
    }
    return nullptr;
  };
  {
    std::lock_guard<std::mutex> lock(mutex);
    if (auto found = find()) return found;
  }
  const auto type = shape.narrow ? memory::data_type::bf16 : memory::data_type::f32;
  memory plain({{shape.out, shape.in, 3, 3}, type, memory::format_tag::hwio}, Engine(),
               const_cast<Bytes*>(packed + kHeader));
  auto made = std::make_shared<memory>(wanted, Engine());
  dnnl::stream stream(Engine());
  dnnl::reorder(plain, *made).execute(stream, plain, *made);
  stream.wait();
  std::lock_guard<std::mutex> lock(mutex);
  if (auto found = find()) return found;
  known.push_front({name, wanted, made});
  held += wanted.get_size();
  while (held > kMostWeights && known.size() > 1) {
    held -= known.back().order.get_size();
    known.pop_back();
  }
  return made;
}

// Sets to zero what is not above 0 in the mask, which is a ReLU's result: above 0 are a float's bits where they
// are as an integer. Without branches, so that the compiler takes many at once.
template <typename Integer>
void Masked(const void* values, const void* mask, void* result, int64_t count) {
  const auto* __restrict from = static_cast<const Integer*>(values);
  const auto* __restrict passed = static_cast<const Integer*>(mask);
  auto* __restrict to = static_cast<Integer*>(result);
  for (int64_t k = 0; k < count; ++k) to[k] = from[k] & -static_cast<Integer>(passed[k] > 0);
}

struct Call {
  int64_t pictures, height, columns, in, out;  // of the source
  int64_t above, below;                        // rows of zeros
  bool narrow;
  const Bytes* source;
  const Bytes* mask;  // of the source's shape, or none
  const Bytes* packed;
  const float* bias;  // or none
  Bytes* result;
};

void RunBand(const Call& call, int64_t picture, int64_t first, int64_t last) {
  thread_local Buffer masked, scratch;
  OneThread one;
  const int64_t rows = call.height + call.above + call.below - 2;  // of the result
  const bool top = first == 0 && call.above, bottom = last == rows && call.below;
  const Shape shape{last - first, call.columns, call.in,     call.out,
                    top,          bottom,       call.narrow, call.bias != nullptr};
  const auto primitive = Find(shape);
  const auto& wanted = primitive->description;
  const auto weights = Weights(call.packed, shape, wanted.weights_desc());
  const int64_t line = call.columns * call.in * shape.size();
  const int64_t begin = first - call.above + top, count = last - first + 2 - top - bottom;
  const int64_t offset = (picture * call.height + begin) * line;
  void* source = const_cast<Bytes*>(call.source + offset);
  if (call.mask) {
    void* to = masked.Get(count * line);
    if (call.narrow) {
      Masked<int16_t>(source, call.mask + offset, to, count * line / 2);
    } else {
      Masked<int32_t>(source, call.mask + offset, to, count * line / 4);
    }
    source = to;
  }
  Bytes* result = call.result + (picture * rows + first) * call.columns * call.out * shape.size();
  dnnl::stream stream(Engine());
  std::unordered_map<int, memory> arguments{
      {DNNL_ARG_SRC, memory(wanted.src_desc(), Engine(), source)},
      {DNNL_ARG_WEIGHTS, *weights},
      {DNNL_ARG_DST, memory(wanted.dst_desc(), Engine(), result)},
      {DNNL_ARG_SCRATCHPAD,
       memory(wanted.scratchpad_desc(), Engine(), scratch.Get(wanted.scratchpad_desc().get_size() + 1))}};
  if (call.bias) {
    arguments.emplace(DNNL_ARG_BIAS, memory(wanted.bias_desc(), Engine(), const_cast<float*>(call.bias)));
  }
  primitive->call.execute(stream, arguments);
  stream.wait();
}

ffi::Error Told() {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "Out of memory in a convolution of oneDNN");
  } catch (const dnnl::error& error) {
    if (error.status == dnnl_out_of_memory) {
      return ffi::Error(ffi::ErrorCode::kResourceExhausted, "Out of memory in a convolution of oneDNN");
    }
    return ffi::Error(ffi::ErrorCode::kInternal, std::string("oneDNN: ") + error.what());
  } catch (const std::exception& error) {
    return ffi::Error(ffi::ErrorCode::kInternal, std::string("oneDNN: ") + error.what());
  }
}

// Pieces of work that threads take one after the other until none is left, or one has failed.
class Pieces {
 public:
  Pieces(int64_t count, std::function<void(int64_t)> run) : count_(count), run_(std::move(run)) {}

  void Work() {
    for (int64_t piece; (piece = next_.fetch_add(1)) < count_;) {
      bool failed = failed_;
      ffi::Error error;
      if (!failed) {
        try {
          run_(piece);
        } catch (...) {
          error = Told();
          failed = true;
        }
      }
      std::lock_guard<std::mutex> lock(mutex_);
      if (failed && !failed_) error_ = error;
      failed_ = failed_ || failed;
      if (++done_ == count_) all_.notify_all();
    }
  }

  ffi::Error Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    all_.wait(lock, [&] { return done_ == count_; });
    return error_;
  }

 private:
  const int64_t count_;
  const std::function<void(int64_t)> run_;
  std::atomic<int64_t> next_{0};
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  std::condition_variable all_;
  int64_t done_ = 0;
  ffi::Error error_;
};

ffi::Error Run(const Call& call, ffi::ThreadPool pool) {
  const int64_t rows = call.height + call.above + call.below - 2;
  const int64_t threads = std::max<int64_t>(1, pool.num_threads());
  int64_t bands = (rows + kBandRows - 1) / kBandRows;
  if (call.pictures < threads) bands = (bands + threads - 1) / threads * threads;  // none of them waits at the end
  bands = std::min(bands, rows);
  // What is scheduled outlives this call where nothing was left of it to do: it must not refer to `call`.
  auto pieces = std::make_shared<Pieces>(call.pictures * bands, [=](int64_t piece) {
    const int64_t picture = piece / bands, band = piece % bands;
    RunBand(call, picture, rows * band / bands, rows * (band + 1) / bands);
  });
  for (int64_t k = 1; k < std::min(threads, call.pictures * bands); ++k) {
    pool.Schedule([pieces] { pieces->Work(); });
  }
  pieces->Work();
  return pieces->Wait();
}

ffi::Error Wrong(const std::string& what) { return ffi::Error(ffi::ErrorCode::kInvalidArgument, what); }

ffi::Error Prepare(ffi::AnyBuffer source, const Bytes* mask, ffi::Buffer<ffi::U8> packed, const float* bias,
                   int64_t above, int64_t below, ffi::Result<ffi::AnyBuffer> result, ffi::ThreadPool pool) {
  const auto from = source.dimensions(), to = result->dimensions();
  if (from.size() < 4 || to.size() != from.size()) return Wrong("maps have four axes or more");
  if (source.element_type() != result->element_type()) return Wrong("maps are of one type");
  Call call{};
  call.narrow = source.element_type() == ffi::BF16;
  if (!call.narrow && source.element_type() != ffi::F32) return Wrong("maps are bfloat16 or float32");
  call.pictures = 1;
  for (size_t axis = 0; axis + 3 < from.size(); ++axis) call.pictures *= from[axis];
  const size_t last = from.size();
  call.height = from[last - 3];
  call.columns = from[last - 2];
  call.in = from[last - 1];
  call.out = to[last - 1];
  call.above = above;
  call.below = below;
  call.source = static_cast<const Bytes*>(source.untyped_data());
  call.mask = mask;
  call.packed = packed.typed_data();
  call.bias = bias;
  call.result = static_cast<Bytes*>(result->untyped_data());
  const int64_t size = kHeader + 9 * call.in * call.out * (call.narrow ? 2 : 4);
  if (static_cast<int64_t>(packed.element_count()) != size) return Wrong("a kernel of another shape, or several");
  if (to[last - 3] != call.height + above + below - 2 || to[last - 2] != call.columns) {
    return Wrong("a result of another size");
  }
  if (!result->element_count()) return ffi::Error::Success();
  return Run(call, pool);
}

ffi::Error Forward(ffi::ThreadPool pool, ffi::AnyBuffer source, ffi::Buffer<ffi::U8> packed,
                   ffi::Buffer<ffi::F32> bias, ffi::Result<ffi::AnyBuffer> result, int64_t above, int64_t below) {
  if (bias.element_count() != static_cast<size_t>(result->dimensions().back())) {
    return Wrong("a bias for each channel");
  }
  return Prepare(source, nullptr, packed, bias.typed_data(), above, below, result, pool);
}

ffi::Error Backward(ffi::ThreadPool pool, ffi::AnyBuffer cotangent, ffi::AnyBuffer activations,
                    ffi::Buffer<ffi::U8> packed, ffi::Result<ffi::AnyBuffer> result, int64_t above, int64_t below) {
  if (cotangent.element_type() != activations.element_type() ||
      cotangent.element_count() != activations.element_count()) {
    return Wrong("a cotangent of the activations' shape and type");
  }
  const auto* mask = static_cast<const Bytes*>(activations.untyped_data());
  return Prepare(cotangent, mask, packed, nullptr, above, below, result, pool);
}

ffi::Error Pack(ffi::AnyBuffer kernel, ffi::Result<ffi::Buffer<ffi::U8>> packed) {
  const size_t size = kernel.size_bytes();
  if (packed->element_count() != kHeader + size) return Wrong("a packed kernel has a header and the kernel");
  Bytes* to = packed->typed_data();
  const Name name = NameOf(static_cast<const Bytes*>(kernel.untyped_data()), size);
  std::memset(to, 0, kHeader);
  std::memcpy(to, &name.first, 8);
  std::memcpy(to + 8, &name.second, 8);
  std::memcpy(to + kHeader, kernel.untyped_data(), size);
  return ffi::Error::Success();
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// Returns the set of instructions that primitives are made of, by oneDNN's number (dnnl_cpu_isa_t).
int nst_instructions() { return static_cast<int>(dnnl::get_effective_cpu_isa()); }

// Returns whether products of bfloat16 are among them.
int nst_has_bfloat16() {
  constexpr int wanted = static_cast<int>(dnnl::cpu_isa::avx512_core_bf16);
  return (nst_instructions() & wanted) == wanted;
}

// Returns whether convolutions of bfloat16 can be made, by products of it or of float32.
int nst_convolves_bfloat16() {
  constexpr int ways[] = {static_cast<int>(dnnl::cpu_isa::avx512_core), static_cast<int>(dnnl::cpu_isa::avx2_vnni_2)};
  for (const int wanted : ways) {
    if ((nst_instructions() & wanted) == wanted) return 1;
  }
  return 0;
}

// Returns the version of oneDNN that is loaded: 1000 times the major number, and the minor one.
int nst_version() { return 1000 * dnnl_version()->major + dnnl_version()->minor; }

XLA_FFI_DEFINE_HANDLER_SYMBOL(nst_forward, Forward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::Buffer<ffi::U8>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<int64_t>("above")
                                  .Attr<int64_t>("below"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(nst_backward, Backward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::Buffer<ffi::U8>>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<int64_t>("above")
                                  .Attr<int64_t>("below"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(nst_pack, Pack,
                              ffi::Ffi::Bind().Arg<ffi::AnyBuffer>().Ret<ffi::Buffer<ffi::U8>>());
}
#pragma GCC visibility pop
