// RGB of an upright photo: of android.graphics.ImageDecoder.decodeBitmap, say, which turns it as its file says.
package captioner

import android.graphics.Bitmap

fun rgb(bitmap: Bitmap): ByteArray {
    val pixels = IntArray(bitmap.width * bitmap.height)
    bitmap.getPixels(pixels, 0, bitmap.width, 0, 0, bitmap.width, bitmap.height)
    return ByteArray(3 * pixels.size) { i -> (pixels[i / 3] shr (16 - 8 * (i % 3))).toByte() }
}
