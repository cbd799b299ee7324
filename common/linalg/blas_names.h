/* blas_names.h - CBLAS and LAPACKE as this build finds them.  BG_BLAS(cblas_sgemm) is the function's name in the
 * library at hand: a build whose symbols carry a prefix defines BLAS_SYMBOL_PREFIX.
 */
#ifndef BG_BLAS_NAMES_H
#define BG_BLAS_NAMES_H

#if !__has_include(<cblas.h>) && __has_include(<mkl_cblas.h>)
#include <mkl_cblas.h>
#else
#include <cblas.h>
#endif

#if !__has_include(<lapacke.h>) && __has_include(<mkl_lapacke.h>)
#include <mkl_lapacke.h>
#else
#include <lapacke.h>
#endif

#ifdef BLAS_SYMBOL_PREFIX
#define BG_BLAS_PASTE_(prefix, name) prefix##name
#define BG_BLAS_PASTE(prefix, name)  BG_BLAS_PASTE_(prefix, name)
#define BG_BLAS(name)                BG_BLAS_PASTE(BLAS_SYMBOL_PREFIX, name)
#else
#define BG_BLAS(name) name
#endif

#endif /* BG_BLAS_NAMES_H */
