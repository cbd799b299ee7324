/* crash.h - the end of a process by a fault of memory or arithmetic, or an abort. */
#ifndef BG_CRASH_H
#define BG_CRASH_H

/* MPI's own handlers of such signals collect a backtrace first; where memory is damaged that can wait for ever, and the
 * whole job with it.  So a fatal signal is told in one line and ends the process at once; mpirun then ends the others.
 * Handlers that were there before MPI (a sanitizer's) stay.  bg_crash_begin is called before MPI_Init, bg_crash_catch
 * after. */
void bg_crash_begin(void);
void bg_crash_catch(const char *stage, int rank);

#endif /* BG_CRASH_H */
