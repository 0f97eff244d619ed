/* Rotation of the pairs of a head. */

/* The angle of `pos` turns of turn = {high, low} * 2^-64, as a fraction of half a turn in [-1, 1): exact for any position. */
DEVFN float half_turns(uint pos, uint2 turn) { return (float)(int)(pos * turn.x + mul_high(pos, turn.y)) * (1.0f / 2147483648.0f); }

typedef struct {
    float c, s;
} Turn;

DEVFN Turn turn_of(uint pos, uint2 turn, uint turns, float mscale)
{
    Turn t;
    float angle = half_turns(pos, turn);
    t.c = turns ? cos_pi(angle) * mscale : 1.0f;
    t.s = turns ? sin_pi(angle) * mscale : 0.0f;
    return t;
}
