/* Bodies of the convolution for T channels at once; included by kernels.c for each T. */
#ifndef PLAN
#define PLAN
typedef struct {
  int32_t start;   /* first component of x */
  int32_t inputs;  /* 2 l1 + 1 */
  int32_t first;   /* first component of the result */
  int32_t stride;  /* from one m3 to the next */
  int32_t outputs; /* 2 l3 + 1 */
  int32_t entry;   /* first entry of M, stored (m3, m1) */
} Path;

typedef struct {
  const Path *paths;
  const int64_t *senders, *receivers, *pairs; /* of each edge; pairs: row of w */
  const int64_t *receiver_offsets;            /* edges of each receiver */
  const int64_t *sender_order, *sender_offsets;
  const int64_t *pair_edges;                  /* (2, pair_count) */
  const int64_t *edges;                       /* (edge_count) those of a block of pairs */
  int64_t pair_count, edge_count, first_pair; /* of the block */
  int32_t path_count, channels, components, results, entries; /* of x, of out, of M */
} Plan;

#define MOST 23 /* components of degree 11 */

/* Degrees up to 3 are unrolled by the compiler; others, and channels that fill no vector, run the
   same code with loops. */
#define LANE(name, inputs, outputs, A, B, C, RESULT) \
  name##_lanes(plan, path, p, inputs, outputs, A, B, C, RESULT, e, begin, whole, LANES)
#define BY_DEGREE(name, A, B, C, RESULT)                                                       \
  switch (path->inputs * 32 + path->outputs) {                                                 \
    case 1 * 32 + 1: LANE(name, 1, 1, A, B, C, RESULT); break; \
    case 1 * 32 + 3: LANE(name, 1, 3, A, B, C, RESULT); break; \
    case 1 * 32 + 5: LANE(name, 1, 5, A, B, C, RESULT); break; \
    case 1 * 32 + 7: LANE(name, 1, 7, A, B, C, RESULT); break; \
    case 3 * 32 + 1: LANE(name, 3, 1, A, B, C, RESULT); break; \
    case 3 * 32 + 3: LANE(name, 3, 3, A, B, C, RESULT); break; \
    case 3 * 32 + 5: LANE(name, 3, 5, A, B, C, RESULT); break; \
    case 3 * 32 + 7: LANE(name, 3, 7, A, B, C, RESULT); break; \
    case 5 * 32 + 1: LANE(name, 5, 1, A, B, C, RESULT); break; \
    case 5 * 32 + 3: LANE(name, 5, 3, A, B, C, RESULT); break; \
    case 5 * 32 + 5: LANE(name, 5, 5, A, B, C, RESULT); break; \
    case 5 * 32 + 7: LANE(name, 5, 7, A, B, C, RESULT); break; \
    case 7 * 32 + 1: LANE(name, 7, 1, A, B, C, RESULT); break; \
    case 7 * 32 + 3: LANE(name, 7, 3, A, B, C, RESULT); break; \
    case 7 * 32 + 5: LANE(name, 7, 5, A, B, C, RESULT); break; \
    case 7 * 32 + 7: LANE(name, 7, 7, A, B, C, RESULT); break; \
    default: LANE(name, path->inputs, path->outputs, A, B, C, RESULT);                         \
  }                                                                                            \
  if (whole < all)                                                                             \
    name##_one(plan, path, p, path->inputs, path->outputs, A, B, C, RESULT, e, whole, all, 1);
#endif

#define LOAD NAME(load, KIND)
#define STORE NAME(store, KIND)
#define SUM NAME(sum, KIND)

/* Each body does one edge and one path for the channels begin … end: the weights of an edge are the
   largest table by far, and are read once and in order. */

INLINE void NAME(out, KIND)(const Plan *plan, const Path *path, int p, const int inputs,
                            const int outputs, const REAL *M, const REAL *w, const REAL *x,
                            REAL *out, int64_t e, int begin, int end, int step) {
  const int64_t C = plan->channels;
  const REAL *restrict matrix = M + path->entry;
  const REAL *sent = x + (plan->senders[e] * plan->components + path->start) * C;
  const REAL *weights = w + p * C;
  REAL *restrict row = out + (plan->receivers[e] * plan->results + path->first) * C;
  const int64_t stride = path->stride * C;
  for (int c = begin; c < end; c += step) {
    const T weight = LOAD(weights + c);
    T value[MOST];
    UNROLL
    for (int m1 = 0; m1 < inputs; ++m1) value[m1] = weight * LOAD(sent + m1 * C + c);
    UNROLL
    for (int m3 = 0; m3 < outputs; ++m3) {
      T sum = LOAD(row + m3 * stride + c);
      UNROLL
      for (int m1 = 0; m1 < inputs; ++m1) sum += matrix[m3 * inputs + m1] * value[m1];
      STORE(row + m3 * stride + c, sum);
    }
  }
}

INLINE void NAME(sender, KIND)(const Plan *plan, const Path *path, int p, const int inputs,
                               const int outputs, const REAL *g, const REAL *M, const REAL *w,
                               REAL *gx, int64_t e, int begin, int end, int step) {
  const int64_t C = plan->channels;
  const REAL *restrict matrix = M + path->entry;
  const REAL *slope = g + (plan->receivers[e] * plan->results + path->first) * C;
  const REAL *weights = w + p * C;
  REAL *restrict row = gx + (plan->senders[e] * plan->components + path->start) * C;
  const int64_t stride = path->stride * C;
  for (int c = begin; c < end; c += step) {
    const T weight = LOAD(weights + c);
    T value[MOST];
    UNROLL
    for (int m3 = 0; m3 < outputs; ++m3) value[m3] = weight * LOAD(slope + m3 * stride + c);
    UNROLL
    for (int m1 = 0; m1 < inputs; ++m1) {
      T sum = LOAD(row + m1 * C + c);
      UNROLL
      for (int m3 = 0; m3 < outputs; ++m3) sum += matrix[m3 * inputs + m1] * value[m3];
      STORE(row + m1 * C + c, sum);
    }
  }
}

INLINE void NAME(radial, KIND)(const Plan *plan, const Path *path, int p, const int inputs,
                               const int outputs, const REAL *g, const REAL *M, const REAL *x,
                               REAL *gw, int64_t e, int begin, int end, int step) {
  const int64_t C = plan->channels;
  const REAL *restrict matrix = M + path->entry;
  const REAL *sent = x + (plan->senders[e] * plan->components + path->start) * C;
  const REAL *slope = g + (plan->receivers[e] * plan->results + path->first) * C;
  REAL *restrict row = gw + p * C;
  const int64_t stride = path->stride * C;
  for (int c = begin; c < end; c += step) {
    T value[MOST], sum = LOAD(row + c);
    UNROLL
    for (int m1 = 0; m1 < inputs; ++m1) value[m1] = LOAD(sent + m1 * C + c);
    UNROLL
    for (int m3 = 0; m3 < outputs; ++m3) {
      T coupled = matrix[m3 * inputs] * value[0];
      UNROLL
      for (int m1 = 1; m1 < inputs; ++m1) coupled += matrix[m3 * inputs + m1] * value[m1];
      sum += coupled * LOAD(slope + m3 * stride + c);
    }
    STORE(row + c, sum);
  }
}

INLINE void NAME(angular, KIND)(const Plan *plan, const Path *path, int p, const int inputs,
                                const int outputs, const REAL *g, const REAL *w, const REAL *x,
                                REAL *gM, int64_t e, int begin, int end, int step) {
  const int64_t C = plan->channels;
  const REAL *sent = x + (plan->senders[e] * plan->components + path->start) * C;
  const REAL *slope = g + (plan->receivers[e] * plan->results + path->first) * C;
  const REAL *weights = w + p * C;
  REAL *restrict matrix = gM + path->entry;
  const int64_t stride = path->stride * C;
  UNROLL
  for (int m3 = 0; m3 < outputs; ++m3) {
    T sum[MOST];
    UNROLL
    for (int m1 = 0; m1 < inputs; ++m1) sum[m1] = (T){0};
    for (int c = begin; c < end; c += step) {
      const T value = LOAD(weights + c) * LOAD(slope + m3 * stride + c);
      UNROLL
      for (int m1 = 0; m1 < inputs; ++m1) sum[m1] += value * LOAD(sent + m1 * C + c);
    }
    UNROLL
    for (int m1 = 0; m1 < inputs; ++m1) matrix[m3 * inputs + m1] += SUM(sum[m1]);
  }
}

#undef LOAD
#undef STORE
#undef SUM
