/* How a unit of a packed row is read. Re-included by format.h for rows in device memory and in shared memory with FETCH (name), FETCH_SPACE, FETCH_16 and
 * FETCH_8 set. */
DEVFN FN(Raw) FN(FETCH)(FETCH_SPACE const uchar *row, uint u, RowP w)
{
    FN(Raw) r;
#if FMT_CODE >= 4
    UNROLL for (uint j = 0; j < FMT_RAW / 4; j++)
    {
#if FMT_CODE >= 16
        uint4 v = FETCH_16((FETCH_SPACE const uint4 *)row + PLAIN_AT(w, j, u));
#else
        uint4 v = FETCH_16((FETCH_SPACE const uint4 *)row + j * w.n_units + u);
#endif
        r.c[4 * j] = v.x;
        r.c[4 * j + 1] = v.y;
        r.c[4 * j + 2] = v.z;
        r.c[4 * j + 3] = v.w;
    }
#elif FMT_CODE >= 2
    uint2 v = FETCH_8((FETCH_SPACE const uint2 *)row + u);
    r.c[0] = v.x;
    r.c[1] = v.y;
#else
    r.c[0] = ((FETCH_SPACE const uint *)row)[u];
#endif
#if FMT_CODE == 3 || FMT_CODE == 5
    r.c[FMT_CODE - 1] = ((FETCH_SPACE const uint *)(row + w.off_b))[u];
#elif FMT_CODE == 6
    uint2 h = FETCH_8((FETCH_SPACE const uint2 *)(row + w.off_b) + u);
    r.c[4] = h.x;
    r.c[5] = h.y;
#endif
    r.s = r.d = 0;
#if FMT_SCALE == 1 || FMT_SCALE == 5 || FMT_SCALE == 6
    r.s = ((FETCH_SPACE const ushort *)(row + w.off_s))[u];
#elif FMT_SCALE > 0
    r.s = ((FETCH_SPACE const uint *)(row + w.off_s))[u];
#endif
#if FMT_SCALE >= 5
    r.d = ((FETCH_SPACE const uint *)(row + w.off_d))[u / 8];
#endif
    return r;
}
