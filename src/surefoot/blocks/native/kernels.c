/* Hot loops of the equivariant models, over channels: the innermost axis is contiguous.
 *
 * REAL is float or double. Every loop body is compiled twice, for a vector of channels and for
 * one channel, so that any number of channels works.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define WIDTH 64 /* bytes of a vector */
#define LANES ((int)(WIDTH / sizeof(REAL)))
#define INLINE static inline __attribute__((always_inline))

typedef REAL vector __attribute__((vector_size(WIDTH), aligned(sizeof(REAL)), may_alias));

#define GLUE(name, kind) name##_##kind
#define NAME(name, kind) GLUE(name, kind)

INLINE vector load_lanes(const REAL *from) { return *(const vector *)from; }
INLINE void store_lanes(REAL *to, vector value) { *(vector *)to = value; }
INLINE REAL sum_lanes(vector value) {
  REAL total = 0;
  for (int lane = 0; lane < LANES; ++lane) total += value[lane];
  return total;
}
INLINE REAL load_one(const REAL *from) { return *from; }
INLINE void store_one(REAL *to, REAL value) { *to = value; }
INLINE REAL sum_one(REAL value) { return value; }

#define T vector
#define KIND lanes
#include "convolution.h"
#include "contraction.h"
#undef T
#undef KIND

#define T REAL
#define KIND one
#include "convolution.h"
#include "contraction.h"
#undef T
#undef KIND

#define LOAD NAME(load, KIND)

/* Runs BODY with `c` at every block of channels. */
#define OVER_CHANNELS(channels, VECTOR, SCALAR)          \
  do {                                                   \
    int c = 0;                                           \
    for (; c + LANES <= (channels); c += LANES) VECTOR;  \
    for (; c < (channels); ++c) SCALAR;                  \
  } while (0)

/* ---- convolution: F(g, M, w, x) = sum over edges, paths, m3, m1, channels of
 *      g[receiver, k(path, m3), c] M[edge, path, m3, m1] w[pair, path, c] x[sender, o1 + m1, c] */

void convolution_out(const Plan *plan, const REAL *M, const REAL *w, const REAL *x, REAL *out,
                     int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i)
    OVER_CHANNELS(plan->channels, out_lanes(plan, M, w, x, out, i, c),
                  out_one(plan, M, w, x, out, i, c));
}

void convolution_sender(const Plan *plan, const REAL *g, const REAL *M, const REAL *w, REAL *gx,
                        int64_t begin, int64_t end) {
  for (int64_t s = begin; s < end; ++s)
    OVER_CHANNELS(plan->channels, sender_lanes(plan, g, M, w, gx, s, c),
                  sender_one(plan, g, M, w, gx, s, c));
}

void convolution_radial(const Plan *plan, const REAL *g, const REAL *M, const REAL *x, REAL *gw,
                        int64_t begin, int64_t end) {
  for (int64_t q = begin; q < end; ++q)
    OVER_CHANNELS(plan->channels, radial_lanes(plan, g, M, x, gw, q, c),
                  radial_one(plan, g, M, x, gw, q, c));
}

void convolution_angular(const Plan *plan, const REAL *g, const REAL *w, const REAL *x, REAL *gM,
                         int64_t begin, int64_t end) {
  const int whole = plan->channels - plan->channels % LANES;
  for (int64_t e = begin; e < end; ++e) {
    memset(gM + e * plan->entries, 0, sizeof(REAL) * plan->entries);
    angular_lanes(plan, g, w, x, gM, e, 0, whole, LANES);
    angular_one(plan, g, w, x, gM, e, whole, plan->channels, 1);
  }
}

/* ---- contraction of products of components; threads share the channels */

void contraction_value(const Tree *tree, const REAL *A, const REAL *K, REAL *out, void *space,
                       int64_t begin, int64_t end) {
  int c = (int)begin;
  for (; c + LANES <= end; c += LANES)
    for (int64_t i = 0; i < tree->rows; ++i) value_lanes(tree, A, K, out, space, i, c);
  for (; c < end; ++c)
    for (int64_t i = 0; i < tree->rows; ++i) value_one(tree, A, K, out, space, i, c);
}

void contraction_gradient(const Tree *tree, const REAL *A, const REAL *K, const REAL *g, REAL *gA,
                          REAL *gK, void *space, int64_t begin, int64_t end) {
  int c = (int)begin;
  for (; c + LANES <= end; c += LANES)
    for (int64_t i = 0; i < tree->rows; ++i)
      gradient_lanes(tree, A, K, g, gA, gK, space, i, c);
  for (; c < end; ++c)
    for (int64_t i = 0; i < tree->rows; ++i) gradient_one(tree, A, K, g, gA, gK, space, i, c);
}

void contraction_tangent(const Tree *tree, const REAL *A, const REAL *K, const REAL *g,
                         const REAL *dA, const REAL *dK, REAL *out, REAL *gA, REAL *gK,
                         void *space, int64_t begin, int64_t end) {
  int c = (int)begin;
  for (; c + LANES <= end; c += LANES)
    for (int64_t i = 0; i < tree->rows; ++i)
      tangent_lanes(tree, A, K, g, dA, dK, out, gA, gK, space, i, c);
  for (; c < end; ++c)
    for (int64_t i = 0; i < tree->rows; ++i)
      tangent_one(tree, A, K, g, dA, dK, out, gA, gK, space, i, c);
}
