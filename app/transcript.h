/* What was said, cut into rows of a screen. Knows nothing of where the screen is. */
#ifndef APP_TRANSCRIPT_H
#define APP_TRANSCRIPT_H

#include <stdbool.h>
#include <stddef.h>

enum voice { VOICE_USER, VOICE_ASSISTANT, VOICE_SYSTEM, VOICE_THINKING, VOICE_TOOL, /* have names */ VOICE_COMMAND, VOICE_OUTPUT, VOICE_NOTE, VOICE_ERROR };

struct said {
    enum voice voice;
    char *text; /* [n], valid UTF-8 without control characters but line ends */
    size_t n, cap;
    size_t *rows; /* [n_rows + 1]: where each begins; the last is n */
    size_t n_rows, cap_rows;
    size_t n_wrapped; /* bytes that the rows are about */
};
struct transcript {
    struct said *v; /* [n] */
    size_t n, cap;
    int width;          /* of rows */
    bool show_thinking; /* else it has no rows */
};

void transcript_begin(struct transcript *t, enum voice voice);
void transcript_add(struct transcript *t, const char *text, size_t len); /* to what was begun last */
void transcript_say(struct transcript *t, enum voice voice, const char *text); /* both */
void transcript_clear(struct transcript *t);
void transcript_wrap(struct transcript *t, int width);

/* A row of the screen. */
struct shown_row {
    const struct said *said;
    const char *text; /* [n]; NULL: the name of who speaks */
    size_t n;
    bool blank;
};
size_t transcript_n_rows(const struct transcript *t); /* after transcript_wrap */
struct shown_row transcript_row(const struct transcript *t, size_t i);

/* Columns of the character at text, n > 0 bytes; *len bytes long. What is no character counts as one byte and one column. */
int transcript_char(const char *text, size_t n, size_t *len);

#endif
