// A photo's pixels at the captioner's size as Python has them: Pillow's antialiased bilinear filter, in whole numbers.

private func triangles(_ source: Int, _ target: Int) -> [(first: Int, weights: [Int32])] {
    let scale = Double(source) / Double(target), reach = max(scale, 1)
    return (0..<target).map { i in
        let centre = (Double(i) + 0.5) * scale
        let first = max(0, Int(centre - reach + 0.5)), end = min(source, Int(centre + reach + 0.5))
        let weights = (first..<end).map { max(0, 1 - abs((Double($0) - centre + 0.5) * (1 / reach))) }
        let sum = weights.reduce(0, +)
        return (first, weights.map { Int32(0.5 + $0 / sum * Double(1 << 22)) })
    }
}

/// `lines` lines, filtered; a line's samples are `step` apart, the lines `next` apart, in three channels.
private func filter(
    _ from: [UInt8], _ taps: [(first: Int, weights: [Int32])], lines: Int, step: Int, next: Int, toStep: Int, toNext: Int
) -> [UInt8] {
    var to = [UInt8](repeating: 0, count: lines * taps.count * 3)
    for line in 0..<lines {
        for (i, tap) in taps.enumerated() {
            for channel in 0..<3 {
                var sum: Int32 = 1 << 21
                for (k, weight) in tap.weights.enumerated() {
                    sum += Int32(from[line * next + (tap.first + k) * step + channel]) * weight
                }
                to[line * toNext + i * toStep + channel] = UInt8(min(255, sum >> 22))
            }
        }
    }
    return to
}

/// RGB rows (height * width * 3) to size * size * 3.
func resized(_ rgb: [UInt8], _ width: Int, _ height: Int, _ size: Int) -> [UInt8] {
    let across = triangles(width, size), down = triangles(height, size)
    if height > size && 2 * (width - size) < height - size {  // Pillow's order decides the rounding
        let half = filter(rgb, down, lines: width, step: width * 3, next: 3, toStep: width * 3, toNext: 3)
        return filter(half, across, lines: size, step: 3, next: width * 3, toStep: 3, toNext: size * 3)
    }
    let half = filter(rgb, across, lines: height, step: 3, next: width * 3, toStep: 3, toNext: size * 3)
    return filter(half, down, lines: size, step: size * 3, next: 3, toStep: size * 3, toNext: 3)
}
