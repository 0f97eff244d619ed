/* As much of Apple's Foundation as src/backend/gpu/metal uses, declared for gcc's Objective-C, with Apple's names and types. */
#ifndef FAKE_FOUNDATION_H
#define FAKE_FOUNDATION_H

#include <objc/objc.h>
#include <objc/runtime.h>
#include <stddef.h>
#include <stdint.h>

typedef unsigned long NSUInteger;
typedef long NSInteger;

@protocol NSObject
- (id)retain;
- (oneway void)release;
- (id)autorelease;
@end

@interface NSObject <NSObject> {
    Class isa;
  @public
    unsigned refs;
}
+ (id)alloc;
- (id)init;
- (void)dealloc;
@end

@interface NSString : NSObject {
    char *text;
}
+ (id)stringWithUTF8String:(const char *)s;
- (const char *)UTF8String;
@end

@interface NSError : NSObject {
  @public
    NSString *text;
    NSInteger number;
}
- (NSString *)localizedDescription;
- (NSInteger)code;
@end

@interface NSProcessInfo : NSObject
+ (NSProcessInfo *)processInfo;
- (NSString *)operatingSystemVersionString;
@end

@interface NSAutoreleasePool : NSObject
- (void)drain;
@end

#endif
