// A photo's caption by an ONNX bundle with onnxruntime's Swift package (github.com/microsoft/onnxruntime-swift-package-manager).
//
//     let captioner = try Captioner(bundle: Bundle.main.url(forResource: "bundle", withExtension: nil)!)
//     try captioner.caption(rgb: rgb(image), width: image.width, height: image.height) { word in print(word) }
import CoreGraphics
import Foundation
import OnnxRuntimeBindings

final class Captioner {
    private let encoder, decoder: ORTSession
    private let words: [String]
    private let size = 224, maxLength = 50, units = 256  // preprocessing and shape in manifest.json

    // Load. In an app, once.
    init(bundle: URL) throws {
        let env = try ORTEnv(loggingLevel: .warning), options = try ORTSessionOptions()
        try options.setIntraOpNumThreads(1)
        encoder = try ORTSession(env: env, modelPath: bundle.appendingPathComponent("encoder.onnx").path, sessionOptions: options)
        decoder = try ORTSession(env: env, modelPath: bundle.appendingPathComponent("decoder.onnx").path, sessionOptions: options)
        let text = try String(contentsOf: bundle.appendingPathComponent("vocabulary.txt"), encoding: .utf8)
        words = text.components(separatedBy: "\n").dropLast()
    }

    func caption(rgb: [UInt8], width: Int, height: Int, say: (String) -> Void) throws {
        // Pixels, (1, height, width, 3).
        let pixels = NSMutableData(data: Data(resized(rgb, width, height, size)))
        let image = try ORTValue(tensorData: pixels, elementType: .uInt8, shape: [1, size as NSNumber, size as NSNumber, 3])
        // Encode, once a photo.
        let cross = try encoder.run(withInputs: ["image": image], outputNames: Set(encoder.outputNames()), runOptions: nil)
        // Loop: a token in, the likeliest next one out, and what the decoder keeps of the words before.
        let outputNames = Set(try decoder.outputNames())
        var cache: [String: ORTValue] = [:]
        for name in try decoder.inputNames() where name.hasPrefix("self_") {
            cache[name] = try tensor([Float](), .float, [1, 1, 0, units])
        }
        var token = Int32(words.firstIndex(of: "[START]")!)
        for position in 0..<Int32(maxLength - 1) {  // the last token is [END]
            var inputs = cross.merging(cache) { first, _ in first }
            inputs["tokens"] = try tensor([token], .int32, [1])
            inputs["position"] = try tensor([position], .int32, [])
            let outputs = try decoder.run(withInputs: inputs, outputNames: outputNames, runOptions: nil)
            for name in cache.keys { cache[name] = outputs[name.replacingOccurrences(of: "self_", with: "next_")] }
            let logits = try outputs["logits"]!.tensorData() as Data
            token = logits.withUnsafeBytes { raw in
                let values = raw.bindMemory(to: Float.self)
                return Int32(values.indices.max { values[$0] < values[$1] }!)
            }
            // Words.
            if words[Int(token)] == "[END]" { return }
            say(words[Int(token)])
        }
    }

    private func tensor<T>(_ values: [T], _ type: ORTTensorElementDataType, _ shape: [Int]) throws -> ORTValue {
        let data = values.withUnsafeBytes { NSMutableData(data: Data($0)) }
        return try ORTValue(tensorData: data, elementType: type, shape: shape.map { $0 as NSNumber })
    }
}

/// RGB of an upright image.
func rgb(_ image: CGImage) -> [UInt8] {
    var rgba = [UInt8](repeating: 255, count: image.width * image.height * 4)
    let context = CGContext(
        data: &rgba, width: image.width, height: image.height, bitsPerComponent: 8, bytesPerRow: image.width * 4,
        space: CGColorSpace(name: CGColorSpace.sRGB)!, bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)!
    context.draw(image, in: CGRect(x: 0, y: 0, width: image.width, height: image.height))
    return (0..<image.width * image.height * 3).map { rgba[$0 / 3 * 4 + $0 % 3] }
}
