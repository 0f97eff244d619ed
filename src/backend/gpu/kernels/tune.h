/* Sizes that a device folder may set before this file; read in every module. */
#ifndef MV_UNITS
#define MV_UNITS 512      /* most units of a token that a matvec prepares itself: 20 KB of shared memory */
#endif
#ifndef MV_F32_UNITS
#define MV_F32_UNITS 240  /* the same for f32: 30 KB */
#endif
#ifndef STREAM_ROOM
#define STREAM_ROOM (220 * 1024) /* shared memory for matmuls with streams: all that a multiprocessor has */
#endif
#define PRE 2             /* pieces of 4 elements of a token that a thread holds while it norms them */
