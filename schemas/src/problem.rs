//! The shop's own problem codes: stable names, each with a page that says what it means and what to do. Generic ones, such
//! as `invalid-fields`, are the chassis's.

/// A code of the shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShopCode {
    /// Its stable name.
    pub name: &'static str,
    /// The HTTP status it comes with.
    pub status: u16,
    /// The same for every occurrence.
    pub title: &'static str,
    /// Its page, Markdown.
    pub page: &'static str,
}

/// There is no such order.
pub const ORDER_NOT_FOUND: ShopCode = ShopCode {
    name: "order-not-found",
    status: 404,
    title: "There is no such order",
    page: include_str!("../problems/order-not-found.md"),
};
/// There is no such payment.
pub const PAYMENT_NOT_FOUND: ShopCode = ShopCode {
    name: "payment-not-found",
    status: 404,
    title: "There is no such payment",
    page: include_str!("../problems/payment-not-found.md"),
};
/// This stock was never counted.
pub const STOCK_NOT_FOUND: ShopCode = ShopCode {
    name: "stock-not-found",
    status: 404,
    title: "This stock was never counted",
    page: include_str!("../problems/stock-not-found.md"),
};
/// There is no such reservation.
pub const RESERVATION_NOT_FOUND: ShopCode = ShopCode {
    name: "reservation-not-found",
    status: 404,
    title: "There is no such reservation",
    page: include_str!("../problems/reservation-not-found.md"),
};
/// There is no such saga.
pub const SAGA_NOT_FOUND: ShopCode = ShopCode {
    name: "saga-not-found",
    status: 404,
    title: "There is no such saga",
    page: include_str!("../problems/saga-not-found.md"),
};
/// There is no such stream.
pub const STREAM_NOT_FOUND: ShopCode = ShopCode {
    name: "stream-not-found",
    status: 404,
    title: "There is no such stream",
    page: include_str!("../problems/stream-not-found.md"),
};
/// Nothing is known of this command.
pub const COMMAND_NOT_FOUND: ShopCode = ShopCode {
    name: "command-not-found",
    status: 404,
    title: "Nothing is known of this command",
    page: include_str!("../problems/command-not-found.md"),
};
/// The resource has no such field.
pub const FIELD_NOT_FOUND: ShopCode = ShopCode {
    name: "field-not-found",
    status: 404,
    title: "The resource has no such field",
    page: include_str!("../problems/field-not-found.md"),
};
/// Not enough in stock.
pub const STOCK_INSUFFICIENT: ShopCode = ShopCode {
    name: "stock-insufficient",
    status: 409,
    title: "Not enough in stock",
    page: include_str!("../problems/stock-insufficient.md"),
};
/// Less than what is promised.
pub const STOCK_BELOW_RESERVED: ShopCode = ShopCode {
    name: "stock-below-reserved",
    status: 409,
    title: "Less than what is promised",
    page: include_str!("../problems/stock-below-reserved.md"),
};
/// More than a stock can hold.
pub const STOCK_ABOVE_LIMIT: ShopCode = ShopCode {
    name: "stock-above-limit",
    status: 409,
    title: "More than a stock can hold",
    page: include_str!("../problems/stock-above-limit.md"),
};
/// This order exists.
pub const ORDER_ALREADY_EXISTS: ShopCode = ShopCode {
    name: "order-already-exists",
    status: 409,
    title: "This order exists",
    page: include_str!("../problems/order-already-exists.md"),
};
/// This order cannot be checked out.
pub const ORDER_NOT_PAYABLE: ShopCode = ShopCode {
    name: "order-not-payable",
    status: 409,
    title: "This order cannot be checked out",
    page: include_str!("../problems/order-not-payable.md"),
};
/// This order cannot be cancelled.
pub const ORDER_NOT_CANCELLABLE: ShopCode = ShopCode {
    name: "order-not-cancellable",
    status: 409,
    title: "This order cannot be cancelled",
    page: include_str!("../problems/order-not-cancellable.md"),
};
/// This order cannot be shipped.
pub const ORDER_NOT_SHIPPABLE: ShopCode = ShopCode {
    name: "order-not-shippable",
    status: 409,
    title: "This order cannot be shipped",
    page: include_str!("../problems/order-not-shippable.md"),
};
/// This order cannot be delivered.
pub const ORDER_NOT_DELIVERABLE: ShopCode = ShopCode {
    name: "order-not-deliverable",
    status: 409,
    title: "This order cannot be delivered",
    page: include_str!("../problems/order-not-deliverable.md"),
};
/// Nothing was paid for this order.
pub const ORDER_NOT_REFUNDABLE: ShopCode = ShopCode {
    name: "order-not-refundable",
    status: 409,
    title: "Nothing was paid for this order",
    page: include_str!("../problems/order-not-refundable.md"),
};
/// More than what is left to refund.
pub const REFUND_EXCEEDS_PAID: ShopCode = ShopCode {
    name: "refund-exceeds-paid",
    status: 409,
    title: "More than what is left to refund",
    page: include_str!("../problems/refund-exceeds-paid.md"),
};
/// This payment cannot be captured.
pub const PAYMENT_NOT_CAPTURABLE: ShopCode = ShopCode {
    name: "payment-not-capturable",
    status: 409,
    title: "This payment cannot be captured",
    page: include_str!("../problems/payment-not-capturable.md"),
};
/// This payment cannot be voided.
pub const PAYMENT_NOT_VOIDABLE: ShopCode = ShopCode {
    name: "payment-not-voidable",
    status: 409,
    title: "This payment cannot be voided",
    page: include_str!("../problems/payment-not-voidable.md"),
};
/// This payment cannot be refunded.
pub const PAYMENT_NOT_REFUNDABLE: ShopCode = ShopCode {
    name: "payment-not-refundable",
    status: 409,
    title: "This payment cannot be refunded",
    page: include_str!("../problems/payment-not-refundable.md"),
};
/// This reservation exists with other lines.
pub const RESERVATION_ALREADY_EXISTS: ShopCode = ShopCode {
    name: "reservation-already-exists",
    status: 409,
    title: "This reservation exists with other lines",
    page: include_str!("../problems/reservation-already-exists.md"),
};
/// This reservation is closed.
pub const RESERVATION_CLOSED: ShopCode = ShopCode {
    name: "reservation-closed",
    status: 409,
    title: "This reservation is closed",
    page: include_str!("../problems/reservation-closed.md"),
};
/// This belongs to an order's checkout.
pub const BELONGS_TO_ORDER: ShopCode = ShopCode {
    name: "belongs-to-order",
    status: 409,
    title: "This belongs to an order's checkout",
    page: include_str!("../problems/belongs-to-order.md"),
};
/// The saga is not where this makes sense.
pub const SAGA_NOT_ACTIONABLE: ShopCode = ShopCode {
    name: "saga-not-actionable",
    status: 409,
    title: "The saga is not where this makes sense",
    page: include_str!("../problems/saga-not-actionable.md"),
};

/// All of them.
pub const ALL: &[ShopCode] = &[
    ORDER_NOT_FOUND,
    PAYMENT_NOT_FOUND,
    STOCK_NOT_FOUND,
    RESERVATION_NOT_FOUND,
    SAGA_NOT_FOUND,
    STREAM_NOT_FOUND,
    COMMAND_NOT_FOUND,
    FIELD_NOT_FOUND,
    STOCK_INSUFFICIENT,
    STOCK_BELOW_RESERVED,
    STOCK_ABOVE_LIMIT,
    ORDER_ALREADY_EXISTS,
    ORDER_NOT_PAYABLE,
    ORDER_NOT_CANCELLABLE,
    ORDER_NOT_SHIPPABLE,
    ORDER_NOT_DELIVERABLE,
    ORDER_NOT_REFUNDABLE,
    REFUND_EXCEEDS_PAID,
    PAYMENT_NOT_CAPTURABLE,
    PAYMENT_NOT_VOIDABLE,
    PAYMENT_NOT_REFUNDABLE,
    RESERVATION_ALREADY_EXISTS,
    RESERVATION_CLOSED,
    BELONGS_TO_ORDER,
    SAGA_NOT_ACTIONABLE,
];

/// The code of this name.
pub fn code(name: &str) -> Option<ShopCode> {
    ALL.iter().copied().find(|code| code.name == name)
}
