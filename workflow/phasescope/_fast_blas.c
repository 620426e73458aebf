/* mlx's CPU wheel asks for these two names. Opened globally before mlx.core, this library is found
   first and passes the calls on. The targets are pointers, set by fast_blas.py, so that OpenBLAS's
   own names stay private: scipy bundles another OpenBLAS with the same names. */
#define ARGUMENTS(T) int order, int ta, int tb, int m, int n, int k, T alpha, \
    const T *a, int lda, const T *b, int ldb, T beta, T *c, int ldc

#define FORWARD(name, T) \
    void (*phasescope_##name)(ARGUMENTS(T)); \
    void cblas_##name(ARGUMENTS(T)) { \
        __atomic_fetch_add(&phasescope_blas_calls, 1, __ATOMIC_RELAXED); \
        phasescope_##name(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc); \
    }

unsigned long phasescope_blas_calls;
FORWARD(sgemm, float)
FORWARD(dgemm, double)
