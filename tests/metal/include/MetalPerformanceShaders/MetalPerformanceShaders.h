/* As much of Apple's Metal Performance Shaders as src/backend/gpu/metal uses, with Apple's names, types and numbers. */
#ifndef FAKE_METAL_PERFORMANCE_SHADERS_H
#define FAKE_METAL_PERFORMANCE_SHADERS_H

#import <Metal/Metal.h>

typedef enum { MPSDataTypeFloat16 = 0x10000000 | 16, MPSDataTypeFloat32 = 0x10000000 | 32 } MPSDataType;
BOOL MPSSupportsMTLDevice(id<MTLDevice> device);

@interface MPSMatrixDescriptor : NSObject {
  @public
    NSUInteger rows, columns, bytes;
    MPSDataType type;
}
+ (MPSMatrixDescriptor *)matrixDescriptorWithRows:(NSUInteger)rows columns:(NSUInteger)columns rowBytes:(NSUInteger)rowBytes dataType:(MPSDataType)type;
@end

@interface MPSMatrix : NSObject {
  @public
    id<MTLBuffer> buffer;
    NSUInteger offset;
    MPSMatrixDescriptor *d;
}
- (id)initWithBuffer:(id<MTLBuffer>)buffer offset:(NSUInteger)offset descriptor:(MPSMatrixDescriptor *)descriptor;
@end

@interface MPSMatrixMultiplication : NSObject {
    BOOL left, right;
    NSUInteger rows, columns, inner;
    double a, b;
}
- (id)initWithDevice:(id<MTLDevice>)device
       transposeLeft:(BOOL)transposeLeft
      transposeRight:(BOOL)transposeRight
          resultRows:(NSUInteger)resultRows
       resultColumns:(NSUInteger)resultColumns
     interiorColumns:(NSUInteger)interiorColumns
               alpha:(double)alpha
                beta:(double)beta;
- (void)encodeToCommandBuffer:(id<MTLCommandBuffer>)commands leftMatrix:(MPSMatrix *)l rightMatrix:(MPSMatrix *)r resultMatrix:(MPSMatrix *)y;
@end

#endif
