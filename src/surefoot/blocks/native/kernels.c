/* Hot loops of the equivariant models, over channels: the innermost axis is contiguous.
 *
 * REAL is float or double. Every loop body is compiled twice, for a vector of channels and for
 * one channel, so that any number of channels works.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

/* Bytes of a vector: those of a register, since compilers keep wider ones in memory. */
#if defined(__AVX512F__)
#define WIDTH 64
#elif defined(__AVX__)
#define WIDTH 32
#else
#define WIDTH 16
#endif
#define LANES ((int)(WIDTH / sizeof(REAL)))
#define UNROLL _Pragma("GCC unroll 8") /* short loops, so that sums stay in registers */
#define INLINE static inline __attribute__((always_inline))

typedef REAL vector __attribute__((vector_size(WIDTH), aligned(sizeof(REAL)), may_alias));
typedef REAL half __attribute__((vector_size(WIDTH / 2)));

#define GLUE(name, kind) name##_##kind
#define NAME(name, kind) GLUE(name, kind)

INLINE vector load_lanes(const REAL *from) { return *(const vector *)from; }
INLINE void store_lanes(REAL *to, vector value) { *(vector *)to = value; }
/* By halves: one after the other would wait for each addition. */
INLINE REAL sum_lanes(vector value) {
  half two[2];
  REAL each[LANES / 2];
  memcpy(two, &value, WIDTH);
  two[0] += two[1];
  memcpy(each, two, WIDTH / 2);
  UNROLL
  for (int left = LANES / 4; left; left /= 2)
    for (int lane = 0; lane < left; ++lane) each[lane] += each[lane + left];
  return each[0];
}
INLINE REAL load_one(const REAL *from) { return *from; }
INLINE void store_one(REAL *to, REAL value) { *to = value; }
INLINE REAL sum_one(REAL value) { return value; }

#define T vector
#define KIND lanes
#include "convolution.h"
#include "contraction.h"
#include "rows.h"
#include "splines.h"
#include "turns.h"
#undef T
#undef KIND

#define T REAL
#define KIND one
#include "convolution.h"
#include "contraction.h"
#include "rows.h"
#include "splines.h"
#include "turns.h"
#undef T
#undef KIND

/* ---- convolution: F(g, M, w, x) = sum over edges, paths, m3, m1, channels of
 *      g[receiver, k(path, m3), c] M[edge, path, m3, m1] w[pair, path, c] x[sender, o1 + m1, c].
 * Each function adds one edge to the derivative of F by the factor it is named after; of M and w
 * it is given the rows of this edge and its pair. */

#define EDGE(name, A, B, C, RESULT)                                                       \
  static void name##_edge(const Plan *plan, const REAL *A, const REAL *B, const REAL *C,  \
                          REAL *RESULT, int64_t e, int begin, int all) {                  \
    const int whole = all - (all - begin) % LANES;                                        \
    for (int p = 0; p < plan->path_count; ++p) {                                          \
      const Path *path = plan->paths + p;                                                 \
      BY_DEGREE(name, A, B, C, RESULT)                                                    \
    }                                                                                     \
  }
EDGE(out, M, w, x, out)
EDGE(sender, g, M, w, gx)
EDGE(radial, g, M, x, gw)
EDGE(angular, g, w, x, gM)

static void clear(REAL *rows, int64_t begin, int64_t end, int64_t size) {
  if (begin < end && size) /* a tensor without values has no address */
    memset(rows + begin * size, 0, sizeof(REAL) * (end - begin) * size);
}

#define EDGE_ROW(M, row) ((M) + (row) * plan->entries)
#define PAIR_ROW(w, row) ((w) + (row) * plan->path_count * plan->channels)

void convolution_out(const Plan *plan, const REAL *M, const REAL *w, const REAL *x, REAL *out,
                     int64_t begin, int64_t end) {
  clear(out, begin, end, (int64_t)plan->results * plan->channels);
  for (int64_t e = plan->receiver_offsets[begin]; e < plan->receiver_offsets[end]; ++e)
    out_edge(plan, EDGE_ROW(M, e), PAIR_ROW(w, plan->pairs[e]), x, out, e, 0, plan->channels);
}

void convolution_sender(const Plan *plan, const REAL *g, const REAL *M, const REAL *w, REAL *gx,
                        int64_t begin, int64_t end) {
  clear(gx, begin, end, (int64_t)plan->components * plan->channels);
  for (int64_t j = plan->sender_offsets[begin]; j < plan->sender_offsets[end]; ++j) {
    const int64_t e = plan->sender_order[j];
    sender_edge(plan, g, EDGE_ROW(M, e), PAIR_ROW(w, plan->pairs[e]), gx, e, 0, plan->channels);
  }
}

void convolution_radial(const Plan *plan, const REAL *g, const REAL *M, const REAL *x, REAL *gw,
                        int64_t begin, int64_t end) {
  clear(gw, begin, end, (int64_t)plan->path_count * plan->channels);
  for (int64_t q = begin; q < end; ++q)
    for (int64_t k = q; k < 2 * plan->pair_count; k += plan->pair_count) {
      const int64_t e = plan->pair_edges[k];
      radial_edge(plan, g, EDGE_ROW(M, e), x, PAIR_ROW(gw, q), e, 0, plan->channels);
    }
}

void convolution_angular(const Plan *plan, const REAL *g, const REAL *w, const REAL *x, REAL *gM,
                         int64_t begin, int64_t end) {
  clear(gM, begin, end, plan->entries);
  for (int64_t e = begin; e < end; ++e)
    angular_edge(plan, g, PAIR_ROW(w, plan->pairs[e]), x, EDGE_ROW(gM, e), e, 0, plan->channels);
}

/* The same for the edges of a block of pairs, of which M and w are, added to what is there. Rows of
   out, gx and gw belong to several of these edges, so threads share vectors of channels. */

const int32_t lanes = LANES;

#define BLOCK(name, A, B, C, RESULT, CALL)                                                    \
  void convolution_##name##_block(const Plan *plan, const REAL *A, const REAL *B,             \
                                  const REAL *C, REAL *RESULT, int64_t begin, int64_t end) {  \
    const int first = (int)begin * LANES;                                                     \
    const int last = end * LANES < plan->channels ? (int)end * LANES : plan->channels;        \
    for (int64_t j = 0; j < plan->edge_count; ++j) {                                          \
      const int64_t e = plan->edges[j], pair = plan->pairs[e] - plan->first_pair;             \
      CALL;                                                                                   \
    }                                                                                         \
  }
BLOCK(out, M, w, x, out,
      out_edge(plan, EDGE_ROW(M, j), PAIR_ROW(w, pair), x, out, e, first, last))
BLOCK(sender, g, M, w, gx,
      sender_edge(plan, g, EDGE_ROW(M, j), PAIR_ROW(w, pair), gx, e, first, last))
BLOCK(radial, g, M, x, gw,
      radial_edge(plan, g, EDGE_ROW(M, j), x, PAIR_ROW(gw, pair), e, first, last))

void convolution_angular_block(const Plan *plan, const REAL *g, const REAL *w, const REAL *x,
                               REAL *gM, int64_t begin, int64_t end) {
  for (int64_t j = begin; j < end; ++j) {
    const int64_t e = plan->edges[j], pair = plan->pairs[e] - plan->first_pair;
    angular_edge(plan, g, PAIR_ROW(w, pair), x, EDGE_ROW(gM, j), e, 0, plan->channels);
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
                         const REAL *dA, REAL *out, REAL *gA, REAL *gK, void *space,
                         int64_t begin, int64_t end) {
  int c = (int)begin;
  for (; c + LANES <= end; c += LANES)
    for (int64_t i = 0; i < tree->rows; ++i)
      tangent_lanes(tree, A, K, g, dA, out, gA, gK, space, i, c);
  for (; c < end; ++c)
    for (int64_t i = 0; i < tree->rows; ++i)
      tangent_one(tree, A, K, g, dA, out, gA, gK, space, i, c);
}

/* ---- products of rows with the matrix of their atom; threads share the atoms */

#define BY_ATOM(name, A, B, RESULT)                                                       \
  void name(const Rows *plan, const REAL *A, const REAL *B, REAL *RESULT, int64_t begin,  \
            int64_t end) {                                                                \
    for (int64_t atom = begin; atom < end; ++atom) {                                      \
      int c = 0;                                                                          \
      for (; c + LANES <= plan->channels; c += LANES) name##_lanes(plan, A, B, RESULT, atom, c); \
      for (; c < plan->channels; ++c) name##_one(plan, A, B, RESULT, atom, c);            \
    }                                                                                     \
  }
BY_ATOM(rows_out, x, M, out)
BY_ATOM(rows_in, g, M, gx)
BY_ATOM(rows_matrix, g, x, gM)

/* ---- splines: rows 6 k[p] … 6 k[p] + 5 of a table; threads share the lengths */

void spline_out(const int64_t *k, const REAL *b, const REAL *table, REAL *out, int64_t C,
                int64_t begin, int64_t end) {
  for (int64_t p = begin; p < end; ++p) {
    const REAL *rows = table + 6 * k[p] * C;
    int64_t c = 0;
    for (; c + LANES <= C; c += LANES) spline_out_lanes(rows, b + 6 * p, out + p * C, C, c);
    for (; c < C; ++c) spline_out_one(rows, b + 6 * p, out + p * C, C, c);
  }
}

void spline_in(const int64_t *k, const REAL *g, const REAL *table, REAL *gb, int64_t C,
               int64_t begin, int64_t end) {
  clear(gb, begin, end, 6);
  for (int64_t p = begin; p < end; ++p) {
    const REAL *rows = table + 6 * k[p] * C;
    vector sums[6] = {0};
    REAL rest[6] = {0};
    int64_t c = 0;
    for (; c + LANES <= C; c += LANES) spline_in_lanes(rows, g + p * C, sums, C, c);
    for (; c < C; ++c) spline_in_one(rows, g + p * C, rest, C, c);
    spline_add_lanes(sums, gb + 6 * p);
    spline_add_one(rest, gb + 6 * p);
  }
}

/* ---- rotations: F(g, D, x) = sum over edges, ends, rows, k, channels of
 *      g[edge, place(l, m), end, c] D[edge, l, m, k] x[atom(edge, end), l, k, c].
 * Threads share the edges, or the atoms where coefficients of atoms come out. */

void turns_in(const Turns *plan, const REAL *D, const REAL *x, REAL *out, int64_t begin,
              int64_t end) {
  const int64_t C = plan->channels, size = (int64_t)plan->components * C;
  for (int64_t e = begin; e < end; ++e)
    for (int side = 0; side < plan->ends; ++side) {
      const REAL *from = x + plan->atoms[side * plan->edges + e] * size;
      REAL *to = out + (e * plan->rows * plan->ends + side) * C;
      const REAL *matrix = D + e * plan->entries;
      int c = 0;
      for (; c + LANES <= C; c += LANES) {
        EACH_DEGREE(turn_in_lanes, matrix, from, to, c)
      }
      for (; c < C; ++c) {
        EACH_DEGREE(turn_in_one, matrix, from, to, c)
      }
    }
}

void turns_back(const Turns *plan, const REAL *g, const REAL *D, REAL *gx, int64_t begin,
                int64_t end) {
  const int64_t C = plan->channels, size = (int64_t)plan->components * C;
  clear(gx, begin, end, size);
  for (int64_t atom = begin; atom < end; ++atom)
    for (int side = 0; side < plan->ends; ++side) {
      const int64_t *offsets = plan->offsets + side * (plan->atom_count + 1);
      for (int64_t j = offsets[atom]; j < offsets[atom + 1]; ++j) {
        const int64_t e = plan->order[side * plan->edges + j];
        const REAL *from = g + (e * plan->rows * plan->ends + side) * C;
        const REAL *matrix = D + e * plan->entries;
        REAL *to = gx + atom * size;
        int c = 0;
        for (; c + LANES <= C; c += LANES) {
          EACH_DEGREE(turn_back_lanes, matrix, from, to, c)
        }
        for (; c < C; ++c) {
          EACH_DEGREE(turn_back_one, matrix, from, to, c)
        }
      }
    }
}

void turns_slope(const Turns *plan, const REAL *g, const REAL *x, REAL *gD, int64_t begin,
                 int64_t end) {
  const int C = plan->channels, whole = C - C % LANES;
  const int64_t size = (int64_t)plan->components * C;
  clear(gD, begin, end, plan->entries);
  for (int64_t e = begin; e < end; ++e)
    for (int side = 0; side < plan->ends; ++side) {
      const REAL *from = x + plan->atoms[side * plan->edges + e] * size;
      const REAL *slope = g + (e * plan->rows * plan->ends + side) * C;
      REAL *matrix = gD + e * plan->entries;
      EACH_DEGREE(turn_slope_lanes, slope, from, matrix, 0, whole, LANES)
      if (whole < C) {
        EACH_DEGREE(turn_slope_one, slope, from, matrix, whole, C, 1)
      }
    }
}
