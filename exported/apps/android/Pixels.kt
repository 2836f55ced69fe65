// A photo's pixels at the captioner's size as Python has them: Pillow's antialiased bilinear filter, in whole numbers.
package captioner

import kotlin.math.abs
import kotlin.math.max
import kotlin.math.min

private class Taps(val first: Int, val weights: IntArray)

private fun triangles(source: Int, target: Int): List<Taps> {
    val scale = source.toDouble() / target
    val reach = max(scale, 1.0)
    return List(target) { i ->
        val centre = (i + 0.5) * scale
        val first = max(0, (centre - reach + 0.5).toInt())
        val end = min(source, (centre + reach + 0.5).toInt())
        val weights = DoubleArray(end - first) { k -> max(0.0, 1 - abs((k + first - centre + 0.5) * (1 / reach))) }
        val sum = weights.sum()
        Taps(first, IntArray(weights.size) { k -> (0.5 + weights[k] / sum * (1 shl 22)).toInt() })
    }
}

/** `lines` lines, filtered; a line's samples are `step` apart, the lines `next` apart, in three channels. */
private fun filter(from: ByteArray, taps: List<Taps>, lines: Int, step: Int, next: Int, toStep: Int, toNext: Int): ByteArray {
    val to = ByteArray(lines * taps.size * 3)
    for (line in 0 until lines) for ((i, tap) in taps.withIndex()) for (channel in 0 until 3) {
        var sum = 1 shl 21
        for ((k, weight) in tap.weights.withIndex()) {
            sum += (from[line * next + (tap.first + k) * step + channel].toInt() and 255) * weight
        }
        to[line * toNext + i * toStep + channel] = min(255, sum shr 22).toByte()
    }
    return to
}

/** RGB rows (height * width * 3) to size * size * 3. */
fun resized(rgb: ByteArray, width: Int, height: Int, size: Int): ByteArray {
    val across = triangles(width, size)
    val down = triangles(height, size)
    if (height > size && 2 * (width - size) < height - size) { // Pillow's order decides the rounding
        val half = filter(rgb, down, width, width * 3, 3, width * 3, 3)
        return filter(half, across, size, 3, width * 3, 3, size * 3)
    }
    val half = filter(rgb, across, height, 3, width * 3, 3, size * 3)
    return filter(half, down, size, size * 3, 3, size * 3, 3)
}
