/* Stands for screen.c where ncurses is missing when the program is built. */
#include "screen.h"

#include "options.h"
#include "print.h"

int screen_open(bool color)
{
    (void)color;
    return print_error(EXIT_RUNTIME, "this program was built without ncurses (Debian: libncurses-dev), so it has no full-screen mode");
}

void screen_close(void) {}
void screen_draw(struct view *v) { (void)v; }
enum press screen_key(wchar_t *c) { return *c = 0, PRESS_NONE; }
int screen_text_width(void) { return 80; }
